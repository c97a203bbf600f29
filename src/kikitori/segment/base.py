"""What tells speech from pauses in a recording of any length: the `Segmenter` protocol."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kikitori.data.augment import Waveform

WINDOW = 512
"""Samples at 16 kHz for which a segmenter gives one probability: 32 ms."""
SPEECH = 0.5
"""A window of at least this probability holds speech."""


class Segmenter(Protocol):
    """Voice activity of one recording, which it reads block by block; a new recording takes a new one."""

    def __call__(self, block: Waveform) -> NDArray[np.float32]:
        """Probability of speech in each window of the next block, (windows,).

        Args:
            block: 16 kHz mono samples, whole windows of `WINDOW` samples but for the last block of a recording, which
                is taken as if silence followed.
        """
        ...
