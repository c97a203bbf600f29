"""Voice activity by level: what is well above the noise floor counts as speech. Needs no model and no package.

The floor is the level that a tenth of the last half minute stays below. Pauses between words are found well; loud noise
counts as speech, which costs time and loses nothing.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.segment.base import WINDOW

MARGIN_DB, SLOPE_DB = 12.0, 3.0  # above the floor a window is as likely speech as not; within so much it is surely
QUIETEST_DB = -70.0  # of full scale; what is below is silence wherever the floor is
MEMORY = 30 * 16_000 // WINDOW  # windows that the floor is taken of
FLOOR = 0.1


class LevelSegmenter:
    """A `Segmenter` by the level of each window above the noise floor of the windows before it and of its block."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=MEMORY)

    def __call__(self, block: Waveform) -> NDArray[np.float32]:
        """As of `Segmenter`."""
        count = -(-len(block) // WINDOW)
        if not count:
            return np.empty(0, np.float32)
        samples = np.concatenate([block, np.zeros(count * WINDOW - len(block), np.float32)]).reshape(count, WINDOW)
        levels = 10.0 * np.log10(samples.var(axis=1, dtype=np.float64) + 1e-12)
        self._levels.extend(levels.tolist())
        floor = max(float(np.quantile(self._levels, FLOOR)), QUIETEST_DB)
        found: NDArray[np.float32] = (1.0 / (1.0 + np.exp((floor + MARGIN_DB - levels) / SLOPE_DB))).astype(np.float32)
        return found
