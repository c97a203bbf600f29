import logging

import numpy as np
import pytest
import torch

from kikitori.model.features import LogMelConfig, log_mel, mask_tail, valid_mask, whisper_log_mel

CONFIG = LogMelConfig()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.1


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """The definition, one frame at a time in float64, with its own slaney filters."""
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    padded = np.pad(emphasised, 256)
    window = np.pad(np.hanning(400), 56)
    spectra = [np.abs(np.fft.rfft(padded[160 * t : 160 * t + 512] * window)) ** 2 for t in range(len(samples) // 160)]

    def mel_to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + np.log(8.0) * 27 / np.log(6.4)
    corners = mel_to_hz(np.linspace(0, top, 82))
    hertz = np.linspace(0, 8000, 257)
    filters = np.zeros((257, 80))
    for bin_ in range(80):
        low, middle, high = corners[bin_ : bin_ + 3]
        triangle = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
        filters[:, bin_] = np.maximum(triangle, 0) * 2 / (high - low)
    features = np.log(np.array(spectra) @ filters + 2**-24)
    return (features - features.mean(0)) / (features.std(0, ddof=1) + 1e-5)


def test_equals_the_definition_frame_by_frame() -> None:
    waveform = noise(1, 16123)
    features, lengths = log_mel(waveform, torch.tensor([16123]), CONFIG)
    assert lengths.tolist() == [100]
    assert np.abs(features[0].numpy() - slow_log_mel(waveform[0].double().numpy())).max() < 2e-4


def test_equals_the_feature_extractor_of_transformers() -> None:
    from transformers import ParakeetFeatureExtractor

    try:
        extractor = ParakeetFeatureExtractor()
    except ImportError as error:  # older releases build the filters with librosa
        pytest.skip(str(error))
    waveforms, lengths = noise(2, 20000), torch.tensor([20000, 12345])
    rows = [row[:length].numpy() for row, length in zip(waveforms, lengths, strict=True)]
    logging.getLogger("transformers").setLevel(logging.ERROR)
    expected = extractor(rows, sampling_rate=16000, return_tensors="pt")
    features, frame_lengths = log_mel(waveforms, lengths, CONFIG)
    assert frame_lengths.tolist() == expected["attention_mask"].sum(-1).tolist()
    torch.testing.assert_close(features, expected["input_features"][:, : features.shape[1]], atol=1e-4, rtol=0)


def test_padding_changes_nothing() -> None:
    waveforms, lengths = noise(4, 16000), torch.tensor([16000, 8001, 159, 1])
    features, frame_lengths = log_mel(waveforms, lengths, CONFIG)
    assert frame_lengths.tolist() == [100, 50, 1, 1]
    for row, length in enumerate(lengths.tolist()):
        garbage = torch.full((1, length + 5000), float("nan"))
        garbage[0, :length] = waveforms[row, :length]
        alone, _ = log_mel(garbage, lengths[row : row + 1], CONFIG)
        size = alone.shape[1]
        torch.testing.assert_close(features[row, :size], alone[0], atol=1e-5, rtol=0)
        assert features[row, size:].abs().sum() == 0


@pytest.mark.parametrize("num_samples", [0, 1, 2, 159, 160, 161, 319, 320, 321])
def test_short_utterances_have_a_finite_frame(num_samples: int) -> None:
    features, lengths = log_mel(noise(1, num_samples), torch.tensor([num_samples]), CONFIG)
    assert features.shape == (1, max(num_samples // 160, 1), 80)
    assert lengths.tolist() == [features.shape[1]]
    assert features.isfinite().all()


def test_silence_is_finite() -> None:
    features, _ = log_mel(torch.zeros(1, 16000), torch.tensor([16000]), CONFIG)
    assert features.isfinite().all()


@pytest.mark.parametrize("bins", [80, 128])
def test_whisper_features_equal_transformers(bins: int) -> None:
    from transformers import WhisperFeatureExtractor

    waveforms, lengths = noise(2, 20000), torch.tensor([20000, 12345])
    rows = [row[:length].numpy() for row, length in zip(waveforms, lengths, strict=True)]
    expected = WhisperFeatureExtractor(feature_size=bins)(rows, sampling_rate=16000, return_tensors="pt")
    features, frame_lengths = whisper_log_mel(waveforms, lengths, num_mel_bins=bins, num_frames=3000)
    assert frame_lengths.tolist() == [125, 78]
    torch.testing.assert_close(features.mT, expected["input_features"], atol=1e-4, rtol=0)


def test_masks() -> None:
    lengths = torch.tensor([2, 0])
    assert valid_mask(lengths, 3).tolist() == [[True, True, False], [False] * 3]
    values = torch.tensor([[1.0, 2.0, float("nan")], [float("inf"), 1.0, 1.0]])
    assert mask_tail(values, lengths).tolist() == [[1.0, 2.0, 0.0], [0.0] * 3]
