"""Losses and targets beside those of the networks: `phones`, `mmi`, `frame_targets` with their `kmeans`."""
