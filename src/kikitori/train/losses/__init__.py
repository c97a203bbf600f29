"""Losses and targets beside those of the networks: `phones`, `mmi` and `frame_targets`."""
