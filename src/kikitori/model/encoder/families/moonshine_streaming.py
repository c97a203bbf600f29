"""Moonshine for streams: frames of the waveform, causal convolutions, layers that read a few frames to either side."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from kikitori.model.encoder.families.moonshine import MoonshineFamily
from kikitori.model.encoder.family import Convolution, subsampled
from kikitori.model.features import mask_tail, valid_mask


class MoonshineStreamingFamily(MoonshineFamily):
    """The family of Moonshine Streaming; the extra entry `do_normalize` is that of its feature extractor.

    A whole recording is read at once, each layer within its own window, as in training.
    """

    front_end: tuple[str, ...] = ("embedder",)
    final_norm: tuple[str, ...] = ("final_norm",)

    def convolutions(self, config: Any) -> list[Convolution]:
        """Frames without overlap, and two causal convolutions, whose padding is all in front."""
        size = _frame_size(config)
        return [(size, size, 0), (5, 2, 2), (5, 2, 2)]

    def max_samples(self, config: Any) -> int | None:
        """As long as the table of positions behind it, of four frames each."""
        return 4 * _frame_size(config) * int(config.max_position_embeddings)

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:
        """Samples of all frames, the last one of which may be cut."""
        size = _frame_size(config)
        return ((num_samples + size - 1) // size * size).clamp(min=size)

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The waveforms, with zeros in place of a frame that is cut, which the encoder does not hear."""
        size, sizes = _frame_size(config), self.num_features(config, lengths)
        waveforms, _ = super().features(config, waveforms, lengths)
        padded = nn.functional.pad(waveforms, (0, max(0, int(sizes.max()) - waveforms.shape[1])))
        return mask_tail(padded[:, : int(sizes.max())], lengths // size * size), sizes

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Front end and Transformer; each frame reads those in the window of a layer, padding itself."""
        hidden, _ = model.embedder(inputs)
        valid = valid_mask(subsampled(self.convolutions(model.config), lengths), hidden.shape[1])
        places = torch.arange(hidden.shape[1], device=hidden.device)
        distance = places[:, None] - places
        for layer, (before, behind) in zip(model.layers, model.config.sliding_windows, strict=True):
            window = ((distance >= 0) & (distance < before)) | ((distance < 0) & (-distance < behind))
            read = (window & valid[:, None, :]) | (distance == 0)
            mask = hidden.new_zeros(read.shape).masked_fill(~read, torch.finfo(hidden.dtype).min)
            hidden = layer(hidden, attention_mask=mask[:, None])
        return cast(Tensor, model.final_norm(hidden))


def _frame_size(config: Any) -> int:
    """Samples of a frame."""
    return round(float(config.sample_rate) * float(config.frame_ms) / 1000)
