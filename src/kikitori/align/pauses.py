"""Pauses of the sound, by its level, and words that stop where one begins.

The attention of a decoder says when a word begins and nothing of when it ends: it lasts until the next one begins, with
the pause between them. A pause is heard in the sound itself.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kikitori.align.words import Spans, in_order
from kikitori.data.augment import Waveform
from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import Word

WINDOW, HOP = 400, 160  # 25 ms every 10 ms
QUIET_DB, FLOOR_DB = 25.0, 3.0  # a pause is so far below loud speech, or no farther than this above the noise
LEAST_CONTRAST_DB = 12.0  # between loud speech and noise: with less, pauses cannot be told from soft speech
LEAST_S = 0.1  # of a pause; closures of plosives are shorter
REACH_S = 0.2  # how far from a pause the border may be that belongs to it
LOUD, SOFT = 95, 10  # percentiles of the level: of loud speech, and of what lies between


def pauses(waveform: Waveform) -> list[tuple[float, float]]:
    """From when to when (seconds) a recording (samples,) at 16 kHz is quiet; none where noise drowns its pauses."""
    if len(waveform) < WINDOW:
        return []
    padded = np.pad(np.asarray(waveform, np.float32), WINDOW // 2, mode="edge")
    variances = sliding_window_view(padded, WINDOW)[::HOP].var(axis=1, dtype=np.float64)
    levels = 10.0 * np.log10(variances + 1e-12)
    soft, loud = np.percentile(levels, [SOFT, LOUD])
    if loud - soft < LEAST_CONTRAST_DB:
        return []
    quiet = levels < max(loud - QUIET_DB, soft + FLOOR_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    places = np.minimum(edges.reshape(-1, 2) * HOP, len(waveform)) / SAMPLE_RATE
    return [(start, end) for start, end in places.tolist() if end - start >= LEAST_S - 1e-9]


def beside_pauses(words: Sequence[Word], found: Spans, *, seconds: float) -> tuple[Word, ...]:
    """Words of which one ends where a pause begins, and the next begins where it ends.

    Args:
        words: In order; one lasts until the next begins.
        found: The pauses of the utterance, in seconds, in order.
        seconds: Duration of the utterance.

    Returns:
        The same words. A pause belongs to the nearest border within `REACH_S`, in its middle if there are several; a
        border takes the longest of its pauses. Other borders stay.
    """
    if not words:
        return ()
    borders = np.array([*(word.start for word in words), words[-1].end])
    taken: dict[int, tuple[float, float]] = {}
    for start, end in found:
        apart = np.maximum(np.maximum(start - borders, borders - end), 0.0)
        border = int(np.lexsort((np.abs(borders - (start + end) / 2.0), apart))[0])
        before = taken.get(border, (0.0, 0.0))
        if apart[border] <= REACH_S and end - start > before[1] - before[0]:
            taken[border] = (start, end)
    moved = [*words]
    for border, (start, end) in taken.items():
        if border > 0:
            moved[border - 1] = replace(moved[border - 1], end=start)
        if border < len(moved):
            moved[border] = replace(moved[border], start=end)
    return in_order(moved, seconds)
