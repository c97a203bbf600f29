"""Searches over the frames of a CTC head: `best_path`, and `beam`, whose inside is compiled.

- `prefix_beam`: frames of the CTC prefix beam · `prefix_tree`: what it holds
"""
