"""Recognisers that some commands take beside one of ours in this process: of other software, of other processes."""
