import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.data.augment import add_noise, change_gain, change_speed, draw_speed, spec_augment, warp_frequencies
from kikitori.io.audio import SAMPLE_RATE

TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
SETTINGS = {"time_masks_per_second": 2.0, "max_time_mask": 20, "frequency_masks": 2, "max_frequency_mask": 10}


def generator(seed=0):
    return np.random.default_rng(seed)


def db(ratio):
    return 20 * np.log10(ratio)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch(factor):
    fast = change_speed(TONE, factor)
    assert fast.dtype == np.float32
    assert len(fast) == pytest.approx(len(TONE) / factor, abs=2)
    peak_hz = np.abs(np.fft.rfft(fast)).argmax() * SAMPLE_RATE / len(fast)
    assert peak_hz == pytest.approx(440 * factor, abs=2)
    assert np.abs(fast).max() == pytest.approx(0.3, abs=0.01)


def test_speed_of_one_and_of_nothing():
    assert change_speed(TONE, 1.0) is TONE
    assert change_speed(np.zeros(0, np.float32), 0.9).size == 0


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 2.0, width=32), st.floats(-40, 40))
def test_gain_never_clips(peak, decibels):
    waveform = np.array([0.0, peak, -peak / 2], np.float32)
    louder = change_gain(waveform, decibels)
    assert louder.dtype == np.float32
    assert np.abs(louder).max() <= max(1.0, peak) * (1 + 1e-6)
    if peak * 10 ** (decibels / 20) <= 1:
        np.testing.assert_allclose(louder, waveform * 10 ** (decibels / 20), rtol=1e-5, atol=1e-30)


def test_gain_of_nothing():
    assert change_gain(np.zeros(0, np.float32), 6.0).size == 0
    assert not change_gain(np.zeros(9, np.float32), 6.0).any()


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 40.0])
def test_noise_has_the_ratio_asked_for(snr_db):
    noisy = add_noise(TONE, snr_db, generator())
    assert noisy.dtype == np.float32
    assert noisy.shape == TONE.shape
    noise = noisy.astype(np.float64) - TONE
    assert db(np.std(TONE) / np.sqrt(np.mean(noise**2))) == pytest.approx(snr_db, abs=0.05)


def test_noise_is_the_generators():
    np.testing.assert_array_equal(add_noise(TONE, 5.0, generator(1)), add_noise(TONE, 5.0, generator(1)))
    assert not np.array_equal(add_noise(TONE, 5.0, generator(1)), add_noise(TONE, 5.0, generator(2)))


@pytest.mark.parametrize("waveform", [np.zeros(0), np.ones(1), np.zeros(100)])
def test_silence_gets_no_noise(waveform):
    waveform = waveform.astype(np.float32)
    np.testing.assert_array_equal(add_noise(waveform, 10.0, generator()), waveform)


@pytest.mark.parametrize("samples", [2, 3, 1001])
def test_noise_on_short_and_faint_waveforms(samples):
    noisy = add_noise(np.full(samples, 1e-30, np.float32), 10.0, generator())
    assert np.isfinite(noisy).all()
    assert noisy.shape == (samples,)


def features(batch=3, frames=120, bins=40):
    return torch.rand(batch, frames, bins) + 1.0  # no zeros of their own


def test_masks_are_whole_rows_and_columns_within_bounds():
    lengths = torch.tensor([120, 60, 7])
    original = features()
    widest_time = widest_frequency = 0
    for seed in range(30):
        masked = spec_augment(original, lengths, generator(seed), **SETTINGS)
        zeros = masked == 0
        assert torch.equal(masked[~zeros], original[~zeros])
        for row, length in enumerate(lengths.tolist()):
            columns = zeros[row].all(dim=0)
            frames = zeros[row].all(dim=1)
            assert torch.equal(zeros[row], frames[:, None] | columns[None])
            assert not frames[length:].any()
            assert columns.sum() <= 2 * 10
            assert frames.sum() <= 20 * np.ceil(2.0 * length / 100)
            widest_time = max(widest_time, int(frames.sum()))
            widest_frequency = max(widest_frequency, int(columns.sum()))
    assert widest_time > 20
    assert widest_frequency > 10


def test_input_stays_and_the_generator_decides():
    original = features()
    before, lengths = original.clone(), torch.tensor([120, 120, 120])
    first = spec_augment(original, lengths, generator(1), **SETTINGS)
    assert torch.equal(original, before)
    assert torch.equal(first, spec_augment(original, lengths, generator(1), **SETTINGS))
    assert not torch.equal(first, spec_augment(original, lengths, generator(2), **SETTINGS))
    assert not torch.equal((first == 0)[0], (first == 0)[1])


def test_no_strength_is_identity():
    original = features()
    masked = spec_augment(original, torch.tensor([120, 50, 1]), generator(), **SETTINGS, strength=0.0)
    assert torch.equal(masked, original)


def test_strength_scales_the_number_of_masks():
    original, lengths = features(8, 1000), torch.full((8,), 1000)
    only_time = {**SETTINGS, "frequency_masks": 0}
    share = [
        float((spec_augment(original, lengths, generator(), **only_time, strength=s) == 0).float().mean())
        for s in (0.25, 0.5, 1.0)
    ]
    assert share[0] < share[1] < share[2]


def test_masks_wider_than_the_features():
    lengths = torch.tensor([5, 0, 1])
    wide = {"time_masks_per_second": 100.0, "max_time_mask": 500, "frequency_masks": 3, "max_frequency_mask": 500}
    masked = spec_augment(features(frames=5, bins=4), lengths, generator(), **wide)
    assert masked.shape == (3, 5, 4)


def test_speed_is_drawn_from_the_factors():
    draws = generator()
    drawn = [draw_speed([0.9, 1.0, 1.1], draws) for _ in range(300)]
    assert set(drawn) == {0.9, 1.0, 1.1}
    assert min(map(drawn.count, set(drawn))) > 60
    assert draw_speed([], draws) == 1.0


def tone(hertz):
    """Log-mel features of a tone: a bump at its frequency, (1, 1, 80)."""
    from transformers.audio_utils import hertz_to_mel

    edges = np.linspace(0, float(hertz_to_mel(8000.0, mel_scale="slaney")), 82)[1:-1]
    width = (edges[1] - edges[0]) * 3
    return torch.exp(-0.5 * torch.from_numpy((edges - float(hertz_to_mel(hertz, mel_scale="slaney"))) / width) ** 2)[
        None, None
    ]


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
@pytest.mark.parametrize("hertz", [400.0, 1500.0, 3000.0])
def test_formants_move_by_the_factor(factor, hertz):
    warped = warp_frequencies(tone(hertz), [factor])
    assert warped.shape == (1, 1, 80)
    assert abs(int(warped.argmax()) - int(tone(hertz / factor).argmax())) <= 1


def test_utterances_are_warped_one_by_one_and_padding_stays_zero():
    both = torch.cat([tone(1000.0), tone(2000.0)]).repeat(1, 3, 1)
    both[1, 2] = 0.0
    warped = warp_frequencies(both, [0.9, 1.1])
    assert torch.equal(warped[1:], warp_frequencies(both[1:], [1.1]))
    assert not warped[1, 2].any()
    torch.testing.assert_close(warp_frequencies(both, [1.0, 1.0]), both)
