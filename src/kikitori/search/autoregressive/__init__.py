"""Searches that write one label after the other with an autoregressive decoder."""
