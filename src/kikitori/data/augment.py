"""Augmentation: speed, gain and noise on the waveform, SpecAugment on log-mel features.

Every draw comes from a generator that the caller seeds per utterance or per step, so that a resumed run repeats it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.io.audio import SAMPLE_RATE

Waveform = np.ndarray[tuple[int], np.dtype[np.float32]]
LAST_FORMANT = 4800.0
"""Hertz up to which vocal tracts of different lengths differ by a factor."""


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Plays the waveform `factor` times as fast (pitch changes too), by resampling (Ko et al. 2015)."""
    import soxr

    if factor == 1.0:
        return waveform
    resampled: Waveform = soxr.resample(waveform, SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ")
    return resampled


def change_gain(waveform: Waveform, decibels: float) -> Waveform:
    """Scales the waveform by `decibels`, without letting it exceed full scale more than it did before."""
    peak = float(np.abs(waveform).max(initial=0.0))
    factor = 10.0 ** (decibels / 20.0)
    if peak > 0:
        factor = min(factor, max(1.0, 1.0 / peak))
    scaled: Waveform = (waveform * factor).astype(np.float32)
    return scaled


def add_noise(waveform: Waveform, snr_db: float, generator: np.random.Generator) -> Waveform:
    """Adds noise whose spectrum falls like 1/f^a with a random slope, at the given signal-to-noise ratio."""
    if waveform.size < 2 or not waveform.any():
        return waveform
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    slope = generator.uniform(0.0, 2.0)
    noise = coloured_noise(waveform.size, slope, generator)
    scale = math.sqrt(power / (np.mean(noise**2) * 10.0 ** (snr_db / 10.0)))
    return (waveform + scale * noise).astype(np.float32)


def coloured_noise(
    size: int, slope: float, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Gaussian noise (size,) whose power falls like 1/f^slope."""
    spectrum = np.fft.rfft(generator.standard_normal(size))
    spectrum /= np.maximum(np.arange(spectrum.size), 1.0) ** (slope / 2)
    noise: NDArray[np.float64] = np.fft.irfft(spectrum, n=size)
    return noise


def spec_augment(
    features: torch.Tensor,
    lengths: torch.Tensor,
    generator: np.random.Generator,
    *,
    time_masks_per_second: float,
    max_time_mask: int,
    frequency_masks: int,
    max_frequency_mask: int,
    strength: float = 1.0,
) -> torch.Tensor:
    """SpecAugment without time warping (Park et al. 2019): zeroes random frames and mel bins of each utterance.

    Args:
        features: Log-mel, (batch, frames, bins), zero mean per bin.
        lengths: Valid frames, (batch,).
        generator: Source of all randomness.
        time_masks_per_second: Number of time masks grows with the length (frames of 10 ms), as in adaptive SpecAugment.
        max_time_mask: Longest time mask in frames.
        frequency_masks: Number of frequency masks.
        max_frequency_mask: Widest frequency mask in bins.
        strength: 0 to 1; scales the number of masks while training ramps in (papers.md B2.2).

    Returns:
        A masked copy.
    """
    masked = features.clone()
    bins = features.shape[2]
    for row, length in enumerate(lengths.tolist()):
        for _ in range(round(strength * frequency_masks)):
            width = int(generator.integers(0, max_frequency_mask + 1))
            start = int(generator.integers(0, max(1, bins - width + 1)))
            masked[row, :, start : start + width] = 0.0
        expected = strength * time_masks_per_second * length / 100.0
        count = int(expected) + int(generator.random() < expected - int(expected))
        for _ in range(count):
            width = int(generator.integers(0, min(max_time_mask, length) + 1))
            start = int(generator.integers(0, max(1, length - width + 1)))
            masked[row, start : start + width] = 0.0
    return masked


def warp_frequencies(features: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Log-mel features (batch, frames, bins) as from vocal tracts of other lengths (Jaitly and Hinton 2013).

    What an utterance has at frequency f comes to f divided by its factor, about 1; from 4.8 kHz on, less and less, so
    that the end of the spectrum stays where it is. Bins go from 0 Hz to half the sample rate.
    """
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    bins = features.shape[2]
    highest = SAMPLE_RATE / 2
    edges = np.linspace(0.0, float(hertz_to_mel(highest, mel_scale="slaney")), bins + 2)
    centres = np.asarray(mel_to_hertz(edges[1:-1], mel_scale="slaney"))
    warped = torch.empty_like(features)
    for row, factor in enumerate(factors):
        bend = LAST_FORMANT * min(factor, 1.0) / factor
        source = np.interp(centres, [0.0, bend, highest], [0.0, bend * factor, highest])
        places = np.interp(np.asarray(hertz_to_mel(source, mel_scale="slaney")), edges[1:-1], np.arange(bins))
        below = torch.from_numpy(np.minimum(places.astype(np.int64), bins - 2)).to(features.device)
        fraction = torch.from_numpy(places).to(features) - below
        warped[row] = features[row][:, below] * (1 - fraction) + features[row][:, below + 1] * fraction
    return warped


def draw_speed(factors: Sequence[float], generator: np.random.Generator) -> float:
    """One of the speed factors, each equally likely."""
    return float(factors[int(generator.integers(len(factors)))]) if factors else 1.0
