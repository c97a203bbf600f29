"""Comparison of systems on the same utterances."""
