"""Moonshine's encoder: a short convolutional front end over the waveform, then a Transformer with rotary positions."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kikitori.model.encoder.families.waveform import WaveformFamily
from kikitori.model.encoder.family import Convolution, min_features, subsampled
from kikitori.model.features import valid_mask


class MoonshineFamily(WaveformFamily):
    """The family of Moonshine; the extra entry `do_normalize` is that of its feature extractor."""

    front_end: tuple[str, ...] = ("conv1", "groupnorm", "conv2", "conv3")
    final_norm: tuple[str, ...] = ("layer_norm",)

    def prepare(self, model: Any) -> None:
        """The published models read waveforms as they are."""
        if not hasattr(model.config, "do_normalize"):
            model.config.do_normalize = False

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def convolutions(self, config: Any) -> list[Convolution]:  # noqa: ARG002
        """Three, without padding."""
        return [(127, 64, 0), (7, 3, 0), (3, 2, 0)]

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Front end, whose group norm looks at all samples of a row and therefore runs row by row, and Transformer."""
        from transformers.masking_utils import create_bidirectional_mask

        convolutions = self.convolutions(model.config)
        least = min_features(convolutions)
        inputs = nn.functional.pad(inputs, (0, max(0, least - inputs.shape[1])))
        sizes = lengths.clamp(min=least).tolist()
        rows = [_front_end(model, row[None, None, :size])[0] for row, size in zip(inputs, sizes, strict=True)]
        hidden = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        valid = valid_mask(subsampled(convolutions, lengths), hidden.shape[1])
        mask = create_bidirectional_mask(config=model.config, inputs_embeds=hidden, attention_mask=valid)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = model.rotary_emb(hidden, position_ids=positions)
        for layer in model.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        return cast(Tensor, model.layer_norm(hidden))


def _front_end(model: Any, waveform: Tensor) -> Tensor:
    """Frames (1, frames, dim) of a waveform (1, 1, samples)."""
    hidden = model.groupnorm(model.conv1(waveform).tanh())
    hidden = nn.functional.gelu(model.conv2(hidden))
    return nn.functional.gelu(model.conv3(hidden)).mT
