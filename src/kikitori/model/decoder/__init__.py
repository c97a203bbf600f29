"""Autoregressive decoders: the LLM with its cache, how it gets at the speech, and its input."""
