"""Whisper's network as recognition uses it: its sizes (`config`) and its parts (`network`), in plain torch.

Tensors have the names that transformers gives them. Training goes on with the classes of transformers.
"""
