"""Whisper, which reads 30 s of log-mel features whatever the utterance, or no more than the speech.

An encoder's configuration may carry the extra entry `window`: `padded` (the default) is Whisper's own 30 s, `speech`
ends half a second behind each utterance, whatever else is in the batch, at a fraction of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.family import Convolution, Window, subsampled
from kikitori.model.features import WHISPER_HOP_SIZE, valid_mask, whisper_log_mel

TAIL = 25
"""Frames of silence (0.5 s) behind an utterance in a window of the length of the speech."""


@dataclass(frozen=True)
class WhisperFamily:
    """The family of Whisper.

    Attributes:
        window: What is read of silence behind an utterance.
    """

    window: Window = "padded"
    front_end: ClassVar[tuple[str, ...]] = ("conv1", "conv2")
    final_norm: ClassVar[tuple[str, ...]] = ("layer_norm",)
    takes_waveform: ClassVar[bool] = False

    @property
    def split(self) -> "WhisperFamily":
        """Itself."""
        return self

    def with_window(self, window: Window) -> Self:
        """The same family behind another window."""
        return replace(self, window=window)

    def prepare(self, model: Any) -> None:
        """Nothing is to be mended."""

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def convolutions(self, config: Any) -> list[Convolution]:  # noqa: ARG002
        """Two, the second with stride 2."""
        return [(3, 1, 1), (3, 2, 1)]

    def max_samples(self, config: Any) -> int | None:
        """30 s."""
        return int(config.max_source_positions) * 2 * WHISPER_HOP_SIZE

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:  # noqa: ARG002
        """ceil(samples / hop)."""
        return (num_samples + WHISPER_HOP_SIZE - 1) // WHISPER_HOP_SIZE

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features, padded with silence to the window of the longest utterance.

        Raises:
            ModelError: An utterance is longer than 30 s.
        """
        longest, limit = int(lengths.max()), int(config.max_source_positions) * 2 * WHISPER_HOP_SIZE
        if longest > limit:
            what = f"an utterance of {longest / SAMPLE_RATE:.2f} s is longer than Whisper's {limit / SAMPLE_RATE:g} s"
            raise ModelError(what, remedy="split the recording or use another encoder")
        frames = int(self.window_lengths(config, self.num_features(config, lengths)).max())
        # One frame more than is kept, so that the convolutions read silence behind the last one in any batch.
        num_frames = 2 * min(int(config.max_source_positions), frames + 1)
        return whisper_log_mel(waveforms, lengths, num_mel_bins=config.num_mel_bins, num_frames=num_frames)

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Frames of the whole window, silence behind the utterance included."""
        return self.upper(model, self.lower(model, inputs, lengths, 0), lengths, 0)

    def lower(self, model: Any, inputs: Tensor, lengths: Tensor, num_layers: int) -> Tensor:
        """States of the whole window after the first `num_layers` layers, (batch, window, dim)."""
        hidden = nn.functional.gelu(model.conv1(inputs.transpose(1, 2)))
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)
        hidden = hidden[:, : int(self.window_lengths(model.config, lengths).max())]
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, p=model.dropout, training=model.training and num_layers == 0)
        return self._run(model, model.layers[:num_layers], hidden, lengths)

    def upper(self, model: Any, states: Tensor, lengths: Tensor, num_layers: int) -> Tensor:
        """The finished frames (batch, window, dim) from what `lower` gave, perhaps of a longer window."""
        states = states[:, : int(self.window_lengths(model.config, lengths).max())]
        return cast(Tensor, model.layer_norm(self._run(model, model.layers[num_layers:], states, lengths)))

    def _run(self, model: Any, layers: Sequence[nn.Module], hidden: Tensor, lengths: Tensor) -> Tensor:
        """Some layers over states (batch, window, dim), each utterance within its own window."""
        mask, kept = None, self.window_lengths(model.config, lengths)
        if int(kept.min()) < hidden.shape[1]:
            behind = ~valid_mask(kept, hidden.shape[1])[:, None, None, :]
            mask = hidden.new_zeros(behind.shape).masked_fill(behind, torch.finfo(hidden.dtype).min)
        for layer in layers:
            if not (model.training and model.layerdrop > 0.0 and float(torch.rand([])) < model.layerdrop):
                hidden = layer(hidden, mask)
        return hidden

    def window_lengths(self, config: Any, lengths: Tensor) -> Tensor:
        """Frames that each utterance is read in, (batch,), from the lengths of its features."""
        limit = int(config.max_source_positions)
        if self.window == "padded":
            return torch.full_like(lengths, limit)
        return (subsampled(self.convolutions(config), lengths) + TAIL).clamp(max=limit)
