"""A batch encoded a few rows at a time: a CPU gains nothing from more, and what runs between layers takes less memory.

In: right-padded waveforms (batch, samples) with lengths. Out: the `EncoderOutput` of the batch, as in one go.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.speech_encoder import EncoderOutput, SpeechEncoder

IN_TURN_S = 60.0  # of speech that a CPU encodes at a time: two windows of Whisper

Encode = Callable[[Tensor, Tensor], EncoderOutput]


def rows_in_turn(encoder: SpeechEncoder, waveforms: Tensor) -> int:
    """How many rows of a batch (batch, samples) to encode at a time: on an accelerator all."""
    if waveforms.device.type != "cpu":
        return len(waveforms)
    read = encoder.max_samples or waveforms.shape[1]  # Whisper reads a whole window
    return max(int(IN_TURN_S * SAMPLE_RATE) // read, 1)


def encode_rows(encode: Encode, waveforms: Tensor, num_samples: Tensor, rows: int) -> EncoderOutput:
    """What `encode` gives of the whole batch, by calls with so many rows at most.

    Args:
        encode: Of an encoder, or of a model around it.
        waveforms: (batch, samples).
        num_samples: (batch,).
        rows: At least 1.
    """
    if len(waveforms) <= rows:
        return encode(waveforms, num_samples)
    parts = [
        encode(part[:, : int(counts.max())], counts)
        for part, counts in zip(waveforms.split(rows), num_samples.split(rows), strict=True)
    ]
    windows = [part.window for part in parts if part.window is not None]
    counted = [part.window_lengths for part in parts if part.window_lengths is not None]
    return EncoderOutput(
        frames=_joined([part.frames for part in parts]),
        lengths=torch.cat([part.lengths for part in parts]),
        intermediate=tuple(map(_joined, zip(*(part.intermediate for part in parts), strict=True))),
        window=_joined(windows) if windows else None,
        window_lengths=torch.cat(counted) if counted else None,
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """States (batch, frames, dim) below each other, zero behind the shorter ones."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])
