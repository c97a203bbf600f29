"""Utterances of speech that is still going on: samples come in as they are said, what they open and close comes out.

An utterance begins a moment before speech is heard and ends at the first pause that is long enough. Where nobody pauses
it is cut, where speech was least likely of late, and the next one goes on from there: nothing is lost or doubled.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kikitori.data.augment import Waveform
from kikitori.io.audio import SAMPLE_RATE
from kikitori.segment.base import SPEECH, WINDOW, Segmenter

PAUSE_S = 0.5  # that ends an utterance
PAD_S = 0.25  # before speech is heard, and of the pause behind it
LATE_S = 2.0  # at the end of an utterance that has to be cut, in which the cut is
SHORTEST_S = 0.1  # of speech; less is a click


@dataclass(frozen=True, eq=False)
class LiveUtterance:
    """An utterance, or what has been said of it.

    Attributes:
        number: Its place among the utterances, from 0.
        start: Where it begins, in samples.
        waveform: Its samples so far.
        ended: Whether it is over.
    """

    number: int
    start: int
    waveform: Waveform
    ended: bool

    @property
    def start_s(self) -> float:
        """Where it begins, in seconds."""
        return self.start / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        """Where it ends so far, in seconds."""
        return (self.start + len(self.waveform)) / SAMPLE_RATE


class LiveUtterances:
    """The utterances of a stream of 16 kHz mono samples.

    Args:
        segmenter: A fresh one.
        longest: Most samples of an utterance.
    """

    def __init__(self, segmenter: Segmenter, longest: int) -> None:
        self._segmenter, self._most = segmenter, longest // WINDOW
        self._rest = np.empty(0, np.float32)  # less than a window
        self._held, self._speech = np.empty(0, np.float32), np.empty(0, np.float32)
        self._start, self._number = 0, 0
        self._open = False

    @property
    def open(self) -> LiveUtterance | None:
        """What is being said; None in a pause."""
        return LiveUtterance(self._number, self._start, self._held.copy(), False) if self._open else None

    def add(self, samples: Waveform) -> Iterator[LiveUtterance]:
        """The utterances that are over with some more samples; to be read to the end before more are added."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % WINDOW
        self._rest = samples[whole:]
        for at in range(0, whole, WINDOW):
            window = samples[at : at + WINDOW]
            self._held = np.concatenate([self._held, window])
            self._speech = np.concatenate([self._speech, self._segmenter(window)])
            yield from self._ended()

    def end(self) -> Iterator[LiveUtterance]:
        """The last utterance, if somebody was speaking when the stream ended."""
        self._held = np.concatenate([self._held, self._rest])
        if self._open:
            yield self._close(len(self._held), len(self._held))

    def _ended(self) -> Iterator[LiveUtterance]:
        pad, heard = round(PAD_S * SAMPLE_RATE / WINDOW), self._speech >= SPEECH
        if not self._open:
            if heard.sum() * WINDOW >= SHORTEST_S * SAMPLE_RATE:
                self._open = True
            elif not heard[-(pad + 1) :].any():
                self._forget(max(len(heard) - pad, 0) * WINDOW)
            return
        quiet = len(heard) - 1 - int(np.flatnonzero(heard)[-1]) if heard.any() else len(heard)
        if quiet * WINDOW >= PAUSE_S * SAMPLE_RATE:
            end = (len(heard) - quiet + pad) * WINDOW
            yield self._close(end, end)
        elif len(heard) >= self._most:
            late = max(len(heard) - round(LATE_S * SAMPLE_RATE / WINDOW), len(heard) // 2)
            cut = (late + int(self._speech[late:].argmin()) + 1) * WINDOW
            yield self._close(cut, cut)
            self._open = bool((self._speech >= SPEECH).any())

    def _close(self, end: int, start: int) -> LiveUtterance:
        """Ends the utterance after so many of its samples; the next one begins from others."""
        found = LiveUtterance(self._number, self._start, self._held[:end].copy(), True)
        self._number, self._open = self._number + 1, False
        self._forget(start)
        return found

    def _forget(self, samples: int) -> None:
        self._held, self._speech = self._held[samples:].copy(), self._speech[samples // WINDOW :].copy()
        self._start += samples
