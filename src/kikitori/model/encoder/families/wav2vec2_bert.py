"""wav2vec2-BERT, which reads pairs of log-mel frames as Kaldi computes them."""

from typing import Any

import torch
from torch import Tensor

from kikitori.model.encoder.families.waveform import WaveformFamily, contextualise
from kikitori.model.encoder.family import Convolution
from kikitori.model.features import KALDI_HOP_SIZE, KALDI_WINDOW_SIZE, kaldi_log_mel

STRIDE = 2
"""Log-mel frames side by side in a frame of the encoder."""


class Wav2Vec2BertFamily(WaveformFamily):
    """The family of w2v-BERT 2.0: an encoder of the layout of wav2vec 2.0's Conformer behind other features."""

    front_end = ()
    takes_waveform = False

    def prepare(self, model: Any) -> None:
        """Nothing is to be mended."""

    def convolutions(self, config: Any) -> list[Convolution]:  # noqa: ARG002
        """Pairs; an odd frame at the end is left out."""
        return [(STRIDE, STRIDE, 0)]

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:  # noqa: ARG002
        """Log-mel frames: one for each whole window."""
        return ((num_samples - KALDI_WINDOW_SIZE) // KALDI_HOP_SIZE + 1).clamp(min=STRIDE)

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features, normalised over each utterance."""
        sizes = self.num_features(config, lengths)
        return kaldi_log_mel(waveforms, lengths, sizes, num_mel_bins=config.feature_projection_input_dim // STRIDE)

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Pairs of features, masking of hidden frames in training, Conformer."""
        inputs = torch.nn.functional.pad(inputs, (0, 0, 0, max(0, STRIDE - inputs.shape[1])))
        pairs = inputs[:, : inputs.shape[1] // STRIDE * STRIDE].unflatten(1, (-1, STRIDE)).flatten(2)
        return contextualise(model, pairs, (lengths // STRIDE).clamp(min=1))
