"""Log-mel features in plain torch, batched, for the encoders that do not read the waveform.

In: right-padded waveforms (batch, samples) with their lengths. Out: features (batch, frames, bins) with their lengths.
Every utterance is computed from its own samples alone: neither its neighbours in the batch nor the padding changes it.
`log_mel` follows NeMo and Parakeet (FastConformer), `whisper_log_mel` follows Whisper, `kaldi_log_mel` follows Kaldi.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kikitori.io.audio import SAMPLE_RATE

STD_FLOOR = 1e-5  # added to the standard deviation, as NeMo does
WHISPER_WINDOW_SIZE = 400
WHISPER_HOP_SIZE = 160
KALDI_WINDOW_SIZE = 400
KALDI_HOP_SIZE = 160
KALDI_FFT_SIZE = 512
KALDI_PREEMPHASIS = 0.97
KALDI_LOWEST_FREQUENCY = 20.0
KALDI_SCALE = 2.0**15  # samples are 16-bit integers there
KALDI_VARIANCE_FLOOR = 1e-7
SLANEY_MEL, SLANEY_HERTZ = 15.0, 1000.0  # where mels become logarithmic
WHISPER_DYNAMIC_RANGE = 8.0  # in log10 units below the loudest cell of the utterance


@dataclass(frozen=True)
class LogMelConfig:
    """What a log-mel feature is; sizes are in samples.

    Args:
        num_mel_bins: Number of mel filters (slaney scale and normalisation, 0 Hz to half the sample rate).
        sample_rate: Samples per second.
        window_size: Length of the symmetric Hann window.
        hop_size: Distance of neighbouring frames.
        fft_size: Length of the Fourier transform, at least `window_size`.
        preemphasis: Factor of the previous sample that is subtracted; 0 for none.
        log_zero_guard: Added to the mel energy before the logarithm.
        dither: Deviation of noise on the samples, which depends on their number alone; 0 for none.
    """

    num_mel_bins: int = 80
    sample_rate: int = SAMPLE_RATE
    window_size: int = 400
    hop_size: int = 160
    fft_size: int = 512
    preemphasis: float = 0.97
    log_zero_guard: float = 2**-24
    dither: float = 0.0

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames per utterance: one per full hop and at least one."""
        return (num_samples // self.hop_size).clamp(min=1)


def log_mel(waveforms: Tensor, lengths: Tensor, config: LogMelConfig) -> tuple[Tensor, Tensor]:
    """Log-mel features with zero mean and unit variance per utterance and bin.

    Args:
        waveforms: (batch, samples), right-padded with anything.
        lengths: (batch,), valid samples of each row.
        config: The definition of the features.

    Returns:
        Features (batch, frames, bins), zero behind each utterance, and the number of frames (batch,). An utterance
        shorter than one hop has one frame, and a single frame is all zeros, since its own mean is taken off.
    """
    waveforms = _fit_samples(waveforms.float(), max(config.hop_size, int(lengths.max())))
    if config.dither:
        waveforms = _dithered(waveforms, lengths, config.dither)
    emphasised = waveforms[:, 1:] - config.preemphasis * waveforms[:, :-1]
    waveforms = mask_tail(torch.cat([waveforms[:, :1], emphasised], dim=1), lengths)
    window = torch.hann_window(config.window_size, periodic=False, device=waveforms.device)
    spectrum = torch.stft(
        waveforms,
        config.fft_size,
        hop_length=config.hop_size,
        win_length=config.window_size,
        window=window,
        pad_mode="constant",
        return_complex=True,
    )  # (batch, frequencies, frames)
    energies = _mel_energies(spectrum, config.num_mel_bins, config.sample_rate)  # (batch, frames, bins)
    features = torch.log(energies + config.log_zero_guard)
    frame_lengths = config.num_frames(lengths)
    features = features[:, : int(frame_lengths.max())]
    return _normalise(features, frame_lengths), frame_lengths


def whisper_log_mel(waveforms: Tensor, lengths: Tensor, *, num_mel_bins: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Whisper's log-mel features: silence up to `num_frames`, log10 cut at 8 below the maximum, about -1 to 1.

    Args:
        waveforms: (batch, samples), right-padded with anything.
        lengths: (batch,), valid samples of each row; no more than `num_frames` hops.
        num_mel_bins: Number of mel filters, 80 or 128 in the public models.
        num_frames: Frames of every output row, 3000 (30 s) in the public models.

    Returns:
        Features (batch, num_frames, bins), whose tail holds the features of silence, and the number of frames that
        start inside the utterance (batch,), at least one.
    """
    waveforms = _fit_samples(mask_tail(waveforms.float(), lengths), num_frames * WHISPER_HOP_SIZE)
    window = torch.hann_window(WHISPER_WINDOW_SIZE, device=waveforms.device)
    spectrum = torch.stft(waveforms, WHISPER_WINDOW_SIZE, WHISPER_HOP_SIZE, window=window, return_complex=True)
    energies = _mel_energies(spectrum[..., :-1], num_mel_bins, SAMPLE_RATE)
    features = energies.clamp(min=1e-10).log10()
    features = torch.maximum(features, features.amax(dim=(1, 2), keepdim=True) - WHISPER_DYNAMIC_RANGE)
    frame_lengths = ((lengths + WHISPER_HOP_SIZE - 1) // WHISPER_HOP_SIZE).clamp(min=1)
    return (features + 4.0) / 4.0, frame_lengths


def kaldi_log_mel(
    waveforms: Tensor, lengths: Tensor, frame_lengths: Tensor, *, num_mel_bins: int, correction: int = 1
) -> tuple[Tensor, Tensor]:
    """Kaldi's log-mel features (Povey window, no dither), with zero mean and unit variance per utterance and bin.

    Args:
        waveforms: (batch, samples), right-padded with anything.
        lengths: (batch,), valid samples of each row; silence follows where its frames want more.
        frame_lengths: Frames of each row, (batch,), each at least 2.
        num_mel_bins: Number of mel filters, from 20 Hz to half the sample rate.
        correction: What is taken off the number of frames where the variance is computed: 1 or 0.

    Returns:
        Features (batch, frames, bins), zero behind each utterance, and the number of frames.
    """
    num_samples = (int(frame_lengths.max()) - 1) * KALDI_HOP_SIZE + KALDI_WINDOW_SIZE
    waveforms = _fit_samples(mask_tail(waveforms.float(), lengths), num_samples) * KALDI_SCALE
    frames = waveforms.unfold(1, KALDI_WINDOW_SIZE, KALDI_HOP_SIZE)  # (batch, frames, window)
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
    window = torch.hann_window(KALDI_WINDOW_SIZE, periodic=False, device=waveforms.device) ** 0.85
    spectrum = torch.fft.rfft((frames - KALDI_PREEMPHASIS * before) * window, KALDI_FFT_SIZE)
    energies = torch.view_as_real(spectrum).square().sum(dim=-1)
    energies = energies @ _kaldi_filters(num_mel_bins).to(energies.device)
    features = energies.clamp(min=torch.finfo(torch.float32).eps).log()
    counts = frame_lengths[:, None, None]
    features = mask_tail(features, frame_lengths)
    centred = mask_tail(features - features.sum(dim=1, keepdim=True) / counts, frame_lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / (counts - correction)
    return centred / (variance + KALDI_VARIANCE_FLOOR).sqrt(), frame_lengths


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """True at the valid positions: (batch, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def mask_tail(values: Tensor, lengths: Tensor) -> Tensor:
    """The values (batch, time, ...) with zeros behind each row's length, whatever was there, NaN included."""
    padding = ~valid_mask(lengths.to(values.device), values.shape[1])
    return values.masked_fill(padding.view(*padding.shape, *[1] * (values.dim() - 2)), 0.0)


def _dithered(waveforms: Tensor, lengths: Tensor, amount: float) -> Tensor:
    """The waveforms (batch, samples) with the noise that transformers adds for Cohere ASR, seeded by length."""
    rows = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in lengths.tolist()]
    noise = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(waveforms)
    return waveforms + amount * _fit_samples(noise, waveforms.shape[1])


def _fit_samples(waveforms: Tensor, num_samples: int) -> Tensor:
    return torch.nn.functional.pad(waveforms, (0, num_samples - waveforms.shape[1]))  # a negative pad cuts


def _mel_energies(spectrum: Tensor, num_mel_bins: int, sample_rate: int) -> Tensor:
    """Mel energies (batch, frames, bins) of a complex spectrum (batch, frequencies, frames)."""
    filters = _mel_filters(spectrum.shape[1], num_mel_bins, sample_rate).to(spectrum.device)
    parts = torch.view_as_real(spectrum.transpose(1, 2))
    return parts.square().sum(dim=-1) @ filters


def _normalise(features: Tensor, lengths: Tensor) -> Tensor:
    counts = lengths[:, None, None]
    features = mask_tail(features, lengths)
    centred = mask_tail(features - features.sum(dim=1, keepdim=True) / counts, lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / (counts - 1).clamp(min=1)
    return centred / (variance.sqrt() + STD_FLOOR)


@cache
def _mel_filters(num_frequencies: int, num_mel_bins: int, sample_rate: int) -> Tensor:
    """Slaney-style triangular filters (frequencies, bins), each of the same area.

    Mels are linear up to 1 kHz, 15 mels, and logarithmic from there on (Slaney's Auditory Toolbox).
    """
    log_step = np.log(6.4) / 27.0
    highest = SLANEY_MEL + np.log(sample_rate / 2 / SLANEY_HERTZ) / log_step
    mels = np.linspace(0.0, highest, num_mel_bins + 2)
    edges = np.where(
        mels < SLANEY_MEL, SLANEY_HERTZ / SLANEY_MEL * mels, SLANEY_HERTZ * np.exp(log_step * (mels - SLANEY_MEL))
    )
    widths, slopes = np.diff(edges), edges - np.linspace(0.0, sample_rate // 2, num_frequencies)[:, None]
    filters = np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return torch.from_numpy(filters * (2.0 / (edges[2:] - edges[:-2]))).float().contiguous()


@cache
def _kaldi_filters(num_mel_bins: int) -> Tensor:
    """Kaldi's triangular filters (frequencies, bins)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=KALDI_FFT_SIZE // 2 + 1,
        num_mel_filters=num_mel_bins,
        min_frequency=KALDI_LOWEST_FREQUENCY,
        max_frequency=SAMPLE_RATE / 2,
        sampling_rate=SAMPLE_RATE,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).float().contiguous()


def cut_tail(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (batch, frames, dim) cut to the longest utterance, with zeros behind each, and their lengths."""
    return mask_tail(frames[:, : int(lengths.max())], lengths), lengths
