"""From a synthesiser's clean sound to a recording: silence trimmed, a room around it, a level as of real speech.

Waveforms (samples,) at 16 kHz; every draw comes from a generator that the caller seeds per utterance.
"""

import numpy as np

from kikitori.data.augment import Waveform, coloured_noise
from kikitori.io.audio import SAMPLE_RATE

SILENT_DB = 45.0  # frames so far below the loudest are silence
MARGIN_S = 0.03  # kept of it, because weak consonants fade into it
LEVEL_DB = -25.0  # RMS against full scale, about that of audiobooks
PEAK = 0.95
_FRAME = SAMPLE_RATE // 100


def trim_silence(waveform: Waveform) -> Waveform:
    """Cuts silence off both ends; of silence alone, or of nothing, nothing is left."""
    frames = waveform[: len(waveform) // _FRAME * _FRAME].reshape(-1, _FRAME)
    energies = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = np.flatnonzero(energies > energies.max(initial=0.0) * 10.0 ** (-SILENT_DB / 10.0))
    if not len(loud):
        return waveform[:0]
    margin = round(MARGIN_S * SAMPLE_RATE)
    trimmed: Waveform = waveform[max(0, int(loud[0]) * _FRAME - margin) : (int(loud[-1]) + 1) * _FRAME + margin]
    return trimmed


def room_response(decay_s: float, direct_db: float, generator: np.random.Generator) -> Waveform:
    """An impulse response after Polack (1988): the direct sound, then coloured noise that decays exponentially.

    The sound falls by 60 dB in `decay_s` (RT60); `direct_db` is the energy of the direct sound against the rest.
    """
    times = np.arange(max(2, round(decay_s * SAMPLE_RATE))) / SAMPLE_RATE
    slope = generator.uniform(0.0, 1.0)  # air and walls take the treble first
    response = coloured_noise(len(times), slope, generator) * 10.0 ** (-3.0 * times / decay_s)
    response[: round(generator.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0.0  # until the first wall answers
    energy = float(np.sum(response**2))
    if energy > 0.0:
        response *= np.sqrt(10.0 ** (-direct_db / 10.0) / energy)
    response[0] = 1.0
    return response.astype(np.float32)


def reverberate(waveform: Waveform, response: Waveform) -> Waveform:
    """The waveform as heard in a room, as long as it was."""
    size = len(waveform) + len(response) - 1
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    reverberant: Waveform = np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)
    return reverberant


def set_level(waveform: Waveform) -> Waveform:
    """Brings the RMS of a waveform to `LEVEL_DB` against full scale, less where a peak would come near full scale."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0
    if power == 0.0:
        return waveform
    factor = min(10.0 ** (LEVEL_DB / 20.0) / np.sqrt(power), PEAK / float(np.abs(waveform).max()))
    levelled: Waveform = (waveform * factor).astype(np.float32)
    return levelled
