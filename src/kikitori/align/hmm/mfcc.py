"""Mel-frequency cepstral coefficients with their slopes, as models of Gaussians want them: small and uncorrelated."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.align.hmm.gaussians import Features
from kikitori.data.augment import Waveform
from kikitori.model.features import LogMelConfig, log_mel

MELS = LogMelConfig(num_mel_bins=26)
FRAMES_PER_SECOND = MELS.sample_rate // MELS.hop_size
COEFFICIENTS = 13
REACH = 2
"""Frames on each side of which a slope is the slope."""


def mfcc(waveform: Waveform) -> Features:
    """Coefficients, slopes and slopes of slopes of a 16 kHz waveform: (frames, 39) at 100 a second."""
    samples = torch.from_numpy(np.ascontiguousarray(waveform))[None]
    mels, _ = log_mel(samples, torch.tensor([len(waveform)]), MELS)  # normalised, which evens out channels
    cepstra: Features = mels[0].numpy() @ _cosines()
    slopes = _slopes(cepstra)
    rows: Features = np.concatenate([cepstra, slopes, _slopes(slopes)], axis=1)
    return rows


@cache
def _cosines() -> NDArray[np.float32]:
    """The discrete cosine transform, (mel bins, coefficients)."""
    bins = np.arange(MELS.num_mel_bins) + 0.5
    angles = np.pi / MELS.num_mel_bins * bins[:, None] * np.arange(COEFFICIENTS)
    cosines: NDArray[np.float32] = (np.cos(angles) * np.sqrt(2 / MELS.num_mel_bins)).astype(np.float32)
    return cosines


def _slopes(rows: Features) -> Features:
    """Least-squares slopes over 2 * REACH + 1 frames; the ends are repeated outwards."""
    padded, frames = np.pad(rows, ((REACH, REACH), (0, 0)), mode="edge"), len(rows)
    weights = np.arange(-REACH, REACH + 1, dtype=np.float32)
    weights /= (weights**2).sum()
    windows = np.stack([padded[start : start + frames] for start in range(len(weights))])
    slopes: Features = np.tensordot(weights, windows, axes=1).astype(np.float32)
    return slopes
