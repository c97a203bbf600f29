import numpy as np
import pytest

from kikitori.io.audio import read_audio
from kikitori.loading import BUNDLED
from kikitori.segment.energy import MIN_SPEECH_DB, has_speech, spectral_variation
from tests.noise import clicks, coloured, soundless

SPEECH = [read_audio(path) for path in sorted((BUNDLED.parents[1] / "samples").glob("*.opus"))]


@pytest.mark.parametrize("seconds", [0.5, 2.0, 6.0])
def test_silence_and_noise_are_steady(seconds):
    assert {name: not has_speech(wave) for name, wave in soundless(seconds).items()} == dict.fromkeys(
        soundless(seconds), True
    )


def test_gaussian_noise_has_two_decibels_whatever_its_colour():
    for exponent in (0, 1, 2):
        assert spectral_variation(coloured(160000, exponent)) == pytest.approx(2.05, abs=0.15)


def test_speech_is_not_whatever_its_level_and_length():
    assert len(SPEECH) == 8
    for wave in SPEECH:
        movement = spectral_variation(wave)
        assert movement > 2 * MIN_SPEECH_DB
        assert spectral_variation(0.001 * wave + 0.2) == pytest.approx(movement, abs=0.05)
        for start in range(0, len(wave) - 24000, 8000):
            assert has_speech(wave[start : start + 24000])


def test_speech_is_found_beside_silence_noise_and_clicks():
    for wave in SPEECH:
        level = np.sqrt((wave**2).mean())
        silence = np.zeros(20 * 16000, np.float32)
        assert has_speech(np.concatenate([silence, wave, silence]))
        assert has_speech(wave + level * 10 ** (-5 / 20) * coloured(len(wave), 0))
        assert has_speech(wave + level * 10 ** (-5 / 20) * coloured(len(wave), 1))
        assert has_speech(0.01 * wave + 0.5 * clicks(len(wave)))
        noise = coloured(30 * 16000, 1)  # half a second of speech in half a minute of noise, 15 dB below
        loudest = int(np.convolve(wave**2, np.ones(8000), "valid").argmax())
        noise[160000:168000] += wave[loudest : loudest + 8000] / level * 10 ** (15 / 20)
        assert has_speech(noise)


def test_too_short_to_say():
    for samples in (0, 1, 399, 4000):
        assert not has_speech(np.zeros(samples, np.float32))
        assert samples < 2 or has_speech(coloured(samples, 0))
