"""Commands that compare systems."""
