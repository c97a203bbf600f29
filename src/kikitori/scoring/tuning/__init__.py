"""Scales of scorers that dev chooses: `grids` to try, `scales` with the fewest errors, `heat_map` of what they give."""
