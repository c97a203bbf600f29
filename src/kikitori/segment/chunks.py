"""Recordings of any length in chunks that a recogniser can take: cut at pauses, none longer than the hard maximum.

Blocks of samples and a `Segmenter` go in, chunks come out, while no more than a chunk and a block are held. A chunk
ends at the best pause, a long one late in it. Where nobody pauses, the cut is forced: neighbours then share a second,
so that each word is whole in one of them, and `kikitori.align.join` makes one text of both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.io.audio import SAMPLE_RATE
from kikitori.segment.base import SPEECH, WINDOW, Segmenter
from kikitori.segment.levels import LevelSegmenter
from kikitori.segment.silero import SileroSegmenter, load_network

LONG_PAUSE_S = 1.0  # always ends a chunk, which then seldom holds two speakers; beyond the padding it is not recognised
PAUSE_S, GOOD_PAUSE_S = 0.16, 0.6  # the shortest at which to cut, and one that no longer one is better than
EARLIEST = 1 / 3  # of the longest chunk, before which no pause ends one that has to be cut
PAD_S = 0.25  # of a pause that stays at the ends of a chunk
FORCED_S, OVERLAP_S = 2.0, 1.0  # stretch at the end of a chunk to look for a forced cut in; what is then shared


@dataclass(frozen=True, eq=False)
class Stretch:
    """Where in a recording an utterance is.

    Attributes:
        start: Where it begins, in samples at 16 kHz.
        samples: How many it has.
        shared: How many of them are also the last ones of the utterance before; 0 at a pause.
        shares: Whether the next one shares some.
        speech: Its stretches of speech in seconds from its start; none where they are not known.
    """

    start: int
    samples: int
    shared: int = 0
    shares: bool = False
    speech: tuple[tuple[float, float], ...] = ()

    @property
    def joined(self) -> bool:
        """Whether its text is joined with that of a neighbour by the times of words."""
        return self.shared > 0 or self.shares


@dataclass(frozen=True, eq=False)
class Chunk(Stretch):
    """A stretch of a recording that is recognised as one utterance, with its samples."""

    waveform: Waveform = field(kw_only=True)

    @property
    def stretch(self) -> Stretch:
        """Where it is, to be kept when its samples are no longer needed."""
        return Stretch(self.start, self.samples, self.shared, self.shares, self.speech)


@dataclass(frozen=True)
class _Cut:
    """Where a chunk ends and the next one begins, in samples; they overlap where a cut is forced."""

    end: int
    start: int


def utterances(blocks: Iterable[Waveform], longest: int) -> Iterator[Chunk]:
    """A recording as one chunk if it has at most `longest` samples, else in chunks, by the best segmenter at hand."""
    source, held, samples = iter(blocks), [], 0
    for block in source:
        held.append(block)
        samples += len(block)
        if samples > longest:
            yield from chunks(chain(held, source), new_segmenter(), longest)
            return
    yield Chunk(0, samples, waveform=np.concatenate(held) if held else np.empty(0, np.float32))


def new_segmenter() -> Segmenter:
    """Silero VAD where it is installed, else voice activity by level."""
    return SileroSegmenter() if load_network() is not None else LevelSegmenter()


def chunks(blocks: Iterable[Waveform], segmenter: Segmenter, longest: int) -> Iterator[Chunk]:
    """The chunks of a recording, in order, of at most `longest` samples each; none without speech.

    Args:
        blocks: The samples of the recording.
        segmenter: A fresh one.
        longest: At least 0.1 s.
    """
    held, speech = np.empty(0, np.float32), np.empty(0, np.float32)  # speech: probability of each window of held
    start, shared = 0, 0  # of held in the recording; what the chunk before has of it
    source = _windows(blocks)
    ended = False
    while not (ended and not len(held)):
        while not ended and len(held) <= longest:
            block = next(source, None)
            ended = block is None
            if block is not None:
                held, speech = np.concatenate([held, block]), np.concatenate([speech, segmenter(block)])
        if not shared:
            gone = _silence_before(speech, ended) * WINDOW
            if gone:
                held, speech, start = held[gone:], speech[gone // WINDOW :], start + gone
                if len(held) <= longest and not ended:
                    continue  # the chunk can be longer
        if not len(held):
            continue
        cut = _cut(speech, len(held), longest, ended)
        speaking, shares = _spans(speech, cut.end), cut.end > cut.start
        yield Chunk(start, cut.end, shared, shares, speaking, waveform=held[: cut.end].copy())
        shared = max(cut.end - cut.start, 0)
        held, speech, start = held[cut.start :].copy(), speech[cut.start // WINDOW :].copy(), start + cut.start


def _windows(blocks: Iterable[Waveform]) -> Iterator[Waveform]:
    """The same samples in blocks of whole windows, but for the last one."""
    rest = np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) - len(rest) % WINDOW
        if whole:
            yield rest[:whole]
            rest = rest[whole:]
    if len(rest):
        yield rest


def _silence_before(speech: NDArray[np.float32], ended: bool) -> int:
    """Windows to leave out at the start: those before speech but for the padding; all of them if nothing follows."""
    heard = np.flatnonzero(speech >= SPEECH)
    pad = round(PAD_S * SAMPLE_RATE / WINDOW)
    if len(heard):
        return max(int(heard[0]) - pad, 0)
    return len(speech) if ended else max(len(speech) - pad, 0)


def _cut(speech: NDArray[np.float32], samples: int, longest: int, ended: bool) -> _Cut:
    """Where to end a chunk that begins with the first of some samples; cuts lie between windows, or at the end."""
    pad = round(PAD_S * SAMPLE_RATE / WINDOW)
    most = longest // WINDOW
    pauses = _pauses(speech)
    for first, last in pauses:
        if last - first >= LONG_PAUSE_S * SAMPLE_RATE / WINDOW and first > 0 and first + pad <= most:
            return _Cut((first + pad) * WINDOW, (last - pad) * WINDOW)
    if ended and samples <= longest:
        return _Cut(samples, samples)
    best, chosen = -1.0, None
    for first, last in pauses:
        middle = (first + last) // 2
        length = (last - first) * WINDOW / SAMPLE_RATE
        if length >= PAUSE_S and EARLIEST * most <= middle <= most:
            score = min(length / GOOD_PAUSE_S, 1.0) + middle / most
            if score > best:
                best, chosen = score, (min(first + pad, middle), max(last - pad, middle))
    if chosen is not None:
        return _Cut(chosen[0] * WINDOW, chosen[1] * WINDOW)
    half = min(round(OVERLAP_S / 2 * SAMPLE_RATE / WINDOW), most // 4)
    earliest = max(most - half - round(FORCED_S * SAMPLE_RATE / WINDOW), most // 2)
    quietest = earliest + int(speech[earliest : most - half + 1].argmin())
    return _Cut((quietest + half) * WINDOW, (quietest - half) * WINDOW)


def _pauses(speech: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First window of each pause and the one after its last."""
    quiet = np.concatenate([[False], speech < SPEECH, [False]])
    starts, ends = np.flatnonzero(np.diff(quiet)).reshape(-1, 2).T
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _spans(speech: NDArray[np.float32], samples: int) -> tuple[tuple[float, float], ...]:
    """Stretches of speech within so many samples, in seconds."""
    seconds = WINDOW / SAMPLE_RATE
    loud = _pauses(1.0 - speech[: -(-samples // WINDOW)])
    return tuple((first * seconds, min(last * seconds, samples / SAMPLE_RATE)) for first, last in loud)
