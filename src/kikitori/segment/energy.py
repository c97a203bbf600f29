"""Voice activity detection by spectral variation: speech has it; silence, noise, hum and clicks have not.

Waveform in, decibels out, without a model. Speech goes from vowel to fricative to closure several times a second, so
that the shape of its short-time spectrum changes. A source of noise may grow louder and softer, but keeps its shape: of
Gaussian noise, whatever its colour, what is left is chance, 2 dB here. Clicks have any shape, but do not last.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.io.audio import SAMPLE_RATE

MIN_SPEECH_DB = 2.4
"""Below, a recording holds no speech: noise, hum, tones, clicks and mixtures of them have 0 to 2.3 dB, speech and
single words 3.8 and more, and 2.5 under noise 5 dB below them (docs/speech_llm_decoding.md)."""

WINDOW, HOP, SIZE = 400, 160, 512  # 25 ms every 10 ms
BANDS = 16
LASTING = 8  # frames; a shorter burst, up to 80 ms, is a click
LOUD_DB, CLICK_DB, DEPTH_DB = 30.0, 10.0, 60.0
SECOND, LEAST_FRAMES = 100, 25  # fewer say nothing
_TINY = 1e-14  # of the energy of a window at full scale


def has_speech(waveform: Waveform) -> bool:
    """Whether a recording (samples,) at 16 kHz may hold speech; one under 0.3 s does unless it is silent."""
    return spectral_variation(waveform) >= MIN_SPEECH_DB


def spectral_variation(waveform: Waveform) -> float:
    """How much the shape of the spectrum varies within a second: dB, of the second in which it varies most.

    That is the mean over bands of the standard deviations over frames, from each of which its mean level is taken away.
    Frames count that are at most 30 dB below the loudest sound that lasts; clicks do not. What is 60 dB below the
    loudest band is as good as silent. A constant signal has 0, one without 25 frames that count infinity.
    """
    wave = np.asarray(waveform, np.float32)
    wave = wave - wave.mean() if len(wave) else wave
    loudest = float(np.abs(wave).max(initial=0.0))
    if loudest == 0.0:
        return 0.0
    if len(wave) < WINDOW + HOP * (LEAST_FRAMES - 1):
        return np.inf
    frames = sliding_window_view(wave / loudest, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    energies = np.abs(np.fft.rfft(frames, SIZE)) ** 2 @ _FILTERS + _TINY  # (frames, bands)
    levels = 10.0 * np.log10(energies.sum(axis=1))
    lasting = _opened(levels)
    kept = (lasting >= lasting.max() - LOUD_DB) & (levels <= lasting + CLICK_DB)
    bands = 10.0 * np.log10(energies)
    bands = np.maximum(bands, bands[kept].max(initial=-np.inf) - DEPTH_DB)
    shapes = bands - bands.mean(axis=1, keepdims=True)
    found = []
    for start in range(0, max(len(kept) - SECOND // 2, 1), SECOND // 2):
        some = shapes[start : start + SECOND][kept[start : start + SECOND]]
        if len(some) >= LEAST_FRAMES:
            found.append(float(some.std(axis=0).mean()))
    return max(found, default=np.inf)


def _opened(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest level that lasts so many frames around each frame: an opening, which cuts clicks off."""
    lows = sliding_window_view(levels, LASTING).min(axis=1)
    edge = np.full(LASTING - 1, -np.inf)
    opened: NDArray[np.float64] = sliding_window_view(np.concatenate([edge, lows, edge]), LASTING).max(axis=1)
    return opened


def _filters() -> NDArray[np.float32]:
    """Averages over bands of equal width in mel from 100 Hz to 7.6 kHz, (bins, bands)."""
    lowest, highest = 2595.0 * np.log10(1.0 + np.array([100.0, 7600.0]) / 700.0)
    mels = np.linspace(float(lowest), float(highest), BANDS + 1)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(SIZE, 1.0 / SAMPLE_RATE)[:, None]
    inside = ((bins >= edges[:-1]) & (bins < edges[1:])).astype(np.float32)
    weights: NDArray[np.float32] = inside / inside.sum(axis=0)
    return weights


_FILTERS = _filters()
