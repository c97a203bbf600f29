"""Waveforms as the bytes of an audio file in a codec of libsndfile, such as Opus."""

import io

import numpy as np

Coding = tuple[str, str]
"""Container and codec, as libsndfile names them."""
G711, GSM, OPUS = ("WAV", "ULAW"), ("WAV", "GSM610"), ("OGG", "OPUS")


def encoded(
    waveform: np.ndarray[tuple[int], np.dtype[np.float32]], rate: int, coding: Coding, kilobits: float | None = None
) -> bytes:
    """An audio file of a waveform (samples,), with so many kbit/s of Opus, 6 to 256; clipped to the range -1 to 1."""
    import soundfile

    container, codec = coding
    # libsndfile has 6 to 256 kbit/s of Opus between the levels 1 and 0.
    level = None if kilobits is None else (256.0 - kilobits) / 250.0
    with io.BytesIO() as file:
        soundfile.write(file, np.clip(waveform, -1.0, 1.0), rate, codec, format=container, compression_level=level)
        return file.getvalue()
