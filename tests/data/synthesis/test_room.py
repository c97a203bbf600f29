import numpy as np
import pytest

from kikitori.data.synthesis.room import LEVEL_DB, MARGIN_S, PEAK, reverberate, room_response, set_level, trim_silence
from kikitori.io.audio import SAMPLE_RATE


def generator(seed=0):
    return np.random.default_rng(seed)


def burst(seconds=0.5, seed=0):
    return (0.2 * generator(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def test_silence_at_the_ends_is_trimmed_and_between_words_kept():
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    waveform = np.concatenate([quiet, burst(), quiet, burst(), quiet + 1e-5])
    trimmed = trim_silence(waveform)
    assert len(trimmed) == pytest.approx((2.0 + 2 * MARGIN_S) * SAMPLE_RATE, abs=2)
    assert len(trim_silence(burst())) == len(burst())


@pytest.mark.parametrize("samples", [0, 1, 159, 5000])
def test_of_silence_nothing_is_left(samples):
    assert len(trim_silence(np.zeros(samples, np.float32))) == 0


@pytest.mark.parametrize("decay_s", [0.2, 0.6])
@pytest.mark.parametrize("direct_db", [0.0, 10.0])
def test_responses_have_the_decay_and_the_direct_sound_asked_for(decay_s, direct_db):
    tails = []
    for seed in range(40):
        response = room_response(decay_s, direct_db, generator(seed)).astype(np.float64)
        assert response[0] == 1.0
        assert 10 * np.log10(1.0 / np.sum(response[1:] ** 2)) == pytest.approx(direct_db, abs=0.1)
        tails.append(response**2 / np.sum(response[1:] ** 2))
    energy = np.mean(tails, axis=0)
    early, late = (round(share * decay_s * SAMPLE_RATE) for share in (0.3, 0.7))
    width = round(0.05 * decay_s * SAMPLE_RATE)
    fallen = 10 * np.log10(energy[early : early + width].sum() / energy[late : late + width].sum())
    assert fallen == pytest.approx(60 * 0.4, abs=2.0)


def test_reverberation_is_convolution_and_keeps_the_length():
    waveform, response = burst(0.05), room_response(0.02, 3.0, generator(1))
    heard = reverberate(waveform, response)
    np.testing.assert_allclose(heard, np.convolve(waveform, response)[: len(waveform)], atol=1e-5)
    assert heard.dtype == np.float32


def test_level():
    assert 10 * np.log10(np.mean(set_level(burst()) ** 2)) == pytest.approx(LEVEL_DB, abs=0.01)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[7] = 0.01
    assert np.abs(set_level(click)).max() == pytest.approx(PEAK)
    for silent in (click[:0], click[:5]):
        np.testing.assert_array_equal(set_level(silent), silent)
