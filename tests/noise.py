"""Recordings without speech, the same on every call."""

import numpy as np
from numpy.typing import NDArray

from kikitori.io.audio import SAMPLE_RATE

Waveform = NDArray[np.float32]


def coloured(num_samples: int, exponent: float, seed: int = 0) -> Waveform:
    """Gaussian noise of mean square 1 whose power falls with the frequency to this exponent: 0 white, 1 pink."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(num_samples))
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * frequencies ** (-exponent / 2), num_samples)
    return (noise / np.sqrt((noise**2).mean())).astype(np.float32)


def hum(num_samples: int, hertz: float = 50.0) -> Waveform:
    times = np.arange(num_samples) / SAMPLE_RATE
    return sum(np.sin(2 * np.pi * hertz * n * times + n) / n for n in (1, 2, 3, 5, 7)).astype(np.float32)


def clicks(num_samples: int, seed: int = 0) -> Waveform:
    """Three bursts of 10 ms a second, over silence."""
    generator = np.random.default_rng(seed)
    wave = np.zeros(num_samples)
    for start in generator.integers(0, num_samples - 160, max(1, 3 * num_samples // SAMPLE_RATE)):
        wave[start : start + 160] += np.exp(-np.arange(160) / 20) * generator.standard_normal(160)
    return wave.astype(np.float32)


def soundless(seconds: float) -> dict[str, Waveform]:
    """Silence and noise of many kinds by name, at levels from -70 to -10 dB."""
    count = round(seconds * SAMPLE_RATE)
    generator = np.random.default_rng(1)
    sounds = {
        "silence": np.zeros(count, np.float32),
        "offset": np.full(count, 0.1, np.float32),
        "dither": (generator.integers(-1, 2, count) / 32768).astype(np.float32),
        "burst": np.concatenate([np.zeros(count // 3), 0.1 * coloured(count - count // 3, 0)]).astype(np.float32),
        "clicks over noise": (clicks(count) + 0.001 * coloured(count, 1)).astype(np.float32),
        "hum and noise": (0.1 * hum(count) + 0.01 * coloured(count, 0)).astype(np.float32),
    }
    for level in (-70, -40, -10):
        gain = np.float32(10 ** (level / 20))
        kinds = {"white": coloured(count, 0), "pink": coloured(count, 1), "brown": coloured(count, 2)}
        kinds |= {"hum": hum(count), "60 Hz": hum(count, 60.0), "clicks": clicks(count)}
        sounds |= {f"{name} {level} dB": gain * wave for name, wave in kinds.items()}
    return sounds
