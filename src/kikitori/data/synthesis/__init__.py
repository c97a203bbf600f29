"""Synthetic speech from sentences: what is read (`sentences`), by which program (`tts`), in which room (`room`)."""
