"""Forced alignment of transcribed speech, with nothing but a pronunciation lexicon to begin with."""
