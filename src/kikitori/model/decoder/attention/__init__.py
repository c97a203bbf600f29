"""Attention of an LLM to the speech in a memory, and which labels its positions read."""
