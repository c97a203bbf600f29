"""Recognisers that other software runs, by the same work as ours: to compare with, not to search in."""
