"""Recordings as a stream of utterances that a recogniser can take, which batches are made of.

Nothing is read before it is asked for, and no more of a recording is held than an utterance or two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.errors import KikitoriError
from kikitori.io.audio import SAMPLE_RATE, stream_audio, to_mono_16k
from kikitori.segment.chunks import Chunk, utterances

Audio = str | Path | bytes
BLOCK_S = 10.0


@dataclass(frozen=True, eq=False)
class Piece:
    """An utterance of a recording.

    Attributes:
        chunk: The utterance.
        name: Of the recording, for errors.
        seconds: Duration of the recording, as far as it can be read, if this is its last piece; else None.
        error: Why the recording cannot be read, or not to its end.
    """

    chunk: Chunk
    name: object
    seconds: float | None = None
    error: KikitoriError | None = None

    @property
    def alone(self) -> bool:
        """Whether it is the whole recording."""
        return self.seconds is not None and self.chunk.samples == round(self.seconds * SAMPLE_RATE)


def pieces(audio: Audio | NDArray[Any], longest: int) -> Iterator[Piece]:
    """The utterances of a recording, of at most `longest` samples each: at least one piece, the last one marked."""
    return pieces_of(_blocks(audio), name_of(audio), longest)


def pieces_of(blocks: Iterable[Waveform], name: object, longest: int) -> Iterator[Piece]:
    """As `pieces`, of the 16 kHz mono samples of a recording in blocks of any length."""
    samples = 0

    def counted() -> Iterator[Waveform]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    none = held = Chunk(0, 0, waveform=np.empty(0, np.float32))
    try:
        for number, chunk in enumerate(utterances(counted(), longest)):
            if number:
                yield Piece(held, name)
            held = chunk
    except KikitoriError as error:
        yield Piece(none, name, samples / SAMPLE_RATE, error)
    else:
        yield Piece(held, name, samples / SAMPLE_RATE)


def name_of(audio: object) -> object:
    """What errors call a recording."""
    return audio if isinstance(audio, str | Path) else "audio"


def _blocks(audio: Audio | NDArray[Any]) -> Iterator[Waveform]:
    if not isinstance(audio, np.ndarray):
        yield from stream_audio(audio, block_seconds=BLOCK_S)
        return
    waveform, size = to_mono_16k(audio, SAMPLE_RATE), round(BLOCK_S * SAMPLE_RATE)
    for start in range(0, len(waveform), size):
        yield waveform[start : start + size]
