"""Corpora that have a layout of their own, a module for each."""
