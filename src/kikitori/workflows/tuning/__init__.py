"""Scales of scorers, chosen on n-best lists."""
