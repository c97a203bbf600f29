"""Masked prediction: stretches of speech are hidden, and an encoder names the clusters of their frames from the rest.

As HuBERT (Hsu et al. 2021), but for what hides: HuBERT hides frames behind the convolutions of its waveform encoder,
here log-mel features are hidden before they are subsampled, as in BEST-RQ (Chiu et al. 2022). A mask covers whole
encoder frames and every log-mel frame of theirs.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.train.losses.frame_targets import Rows


def draw_mask(frames: int, span: int, fraction: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which frames of an utterance are hidden, (frames,): stretches that do not overlap, any places equally likely.

    Stretches have `span` frames, or half of the utterance; they hide `fraction` of it on average, or one stretch.
    """
    span = max(1, min(span, frames // 2))
    expected = fraction * frames / span
    count = int(expected) + int(generator.random() < expected - int(expected))
    count = min(max(1, count), frames // span)
    # Drawn as if each stretch were one frame long, and then pushed apart.
    places = np.sort(generator.permutation(frames - count * (span - 1))[:count]) + np.arange(count) * (span - 1)
    mask = np.zeros(frames, np.bool_)
    mask[(places[:, None] + np.arange(span)).reshape(-1)] = True
    return mask


class MaskedPredictor(nn.Module):
    """An encoder over log-mel features, what hides them, and one linear layer from frames to clusters.

    Their means are (clusters, size).
    """

    def __init__(self, encoder: SpeechEncoder, means: Rows, upsample: int) -> None:
        super().__init__()
        self.clusters, self.upsample = len(means), upsample
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, upsample * self.clusters)
        # It begins as the mean of normalised features, which is also what SpecAugment writes.
        self.mask = nn.Parameter(torch.zeros(encoder.log_mel_config.num_mel_bins))
        # Checkpoints keep the clusters. As integers, for floating-point buffers are averaged over processes.
        self.register_buffer("means_as_bits", torch.from_numpy(np.ascontiguousarray(means)).view(torch.int32))

    @property
    def means(self) -> Rows:
        """Of the clusters, (clusters, size)."""
        means: Rows = self.get_buffer("means_as_bits").cpu().view(torch.float32).numpy()
        return means

    def hidden(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """Log-mel features (batch, log-mel frames, bins) without what masks (batch, frames) hide."""
        spread = masks.repeat_interleave(self.encoder.inputs_per_frame, dim=1)
        spread = nn.functional.pad(spread, (0, inputs.shape[1] - spread.shape[1]))  # a negative pad cuts
        return torch.where(spread[..., None], self.mask.to(inputs.dtype), inputs)

    def forward(self, inputs: Tensor, lengths: Tensor, masks: Tensor) -> EncoderOutput:
        """Frames of log-mel features, of which masks (batch, frames) hide a part."""
        return self.encoder.encode(self.hidden(inputs, masks), lengths)

    def logits(self, frames: Tensor) -> Tensor:
        """Frames (n, dim) to float32 scores of clusters (n, upsample, clusters)."""
        scores: Tensor = self.head(frames).float().view(-1, self.upsample, self.clusters)
        return scores
