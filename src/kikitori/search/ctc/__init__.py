"""Searches over the frames of a CTC head: `best_path`, and `beam` with its compiled inside `prefix_beam`."""
