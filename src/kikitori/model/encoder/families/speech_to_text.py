"""Speech2Text of fairseq, a Transformer behind two convolutions over log-mel frames as Kaldi computes them."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kikitori.model.encoder.family import Convolution, subsampled
from kikitori.model.features import KALDI_HOP_SIZE, KALDI_WINDOW_SIZE, kaldi_log_mel, mask_tail, valid_mask

LEAST = 2
"""Log-mel frames of the shortest utterance: a single one has no variance."""


class SpeechToTextFamily:
    """The family of Speech2Text."""

    front_end: tuple[str, ...] = ("conv",)
    final_norm: tuple[str, ...] = ("layer_norm",)
    takes_waveform = False

    @property
    def split(self) -> None:
        """Its encoder runs as a whole."""

    def prepare(self, model: Any) -> None:
        """Nothing is to be mended."""

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def convolutions(self, config: Any) -> list[Convolution]:
        """Each with stride 2."""
        return [(kernel, 2, kernel // 2) for kernel in config.conv_kernel_sizes]

    def max_samples(self, config: Any) -> int | None:  # noqa: ARG002
        """There is no limit: the table of sinusoids grows."""
        return None

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:  # noqa: ARG002
        """Log-mel frames: one for each whole window."""
        return ((num_samples - KALDI_WINDOW_SIZE) // KALDI_HOP_SIZE + 1).clamp(min=LEAST)

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features, normalised over each utterance."""
        sizes, bins = self.num_features(config, lengths), int(config.input_feat_per_channel)
        return kaldi_log_mel(waveforms, lengths, sizes, num_mel_bins=bins, correction=0)

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Convolutions, which read zeros behind each utterance, sinusoidal positions and Transformer."""
        from transformers.masking_utils import create_bidirectional_mask

        hidden, sizes = mask_tail(inputs, lengths), lengths
        for convolution, shape in zip(model.conv.conv_layers, self.convolutions(model.config), strict=True):
            hidden = nn.functional.glu(convolution(hidden.mT), dim=1).mT
            sizes = subsampled([shape], sizes)
            hidden = mask_tail(hidden, sizes)
        places = model.embed_positions(torch.zeros(1, hidden.shape[1], dtype=torch.int64, device=hidden.device))
        hidden = model.embed_scale * hidden + places
        hidden = nn.functional.dropout(hidden, p=model.dropout, training=model.training)
        valid = valid_mask(sizes, hidden.shape[1])
        mask = create_bidirectional_mask(config=model.config, inputs_embeds=hidden, attention_mask=valid)
        for layer in model.layers:
            if not (model.training and model.layerdrop > 0.0 and float(torch.rand([])) < model.layerdrop):
                hidden = layer(hidden, mask)
        return cast(Tensor, model.layer_norm(hidden))
