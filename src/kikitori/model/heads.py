"""CTC: the head over encoder frames and its loss (Graves et al. 2006).

The head has one output per label unit and one more, the last, for blank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


class CTCHead(nn.Module):
    """One linear layer from frames to label units and blank, whose id is the number of labels.

    With an `upsample` of 2, frames of 80 ms give a decision every 40 ms, which short units such as characters need.
    """

    def __init__(self, dim: int, num_labels: int, upsample: int = 1) -> None:
        super().__init__()
        self.num_labels, self.upsample = num_labels, upsample
        self.linear = nn.Linear(dim, upsample * (num_labels + 1))

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) to float32 log-probabilities (batch, frames * upsample, labels + 1), lengths."""
        logits, lengths = self.logits(frames, lengths)
        return logits.float().log_softmax(dim=-1), lengths

    def logits(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same before it is normalised, which takes its time with the vocabulary of an LLM."""
        batch, num_frames, _ = frames.shape
        logits = self.linear(frames).reshape(batch, num_frames * self.upsample, self.num_labels + 1)
        return logits, lengths * self.upsample


@dataclass(frozen=True)
class CTCLoss:
    """The loss of a batch.

    Attributes:
        total: Sum over the feasible utterances, in nats.
        num_labels: Labels of the feasible utterances, the usual denominator.
        infeasible: Rows whose labels do not fit into their frames; they add nothing to `total`.
    """

    total: Tensor
    num_labels: int
    infeasible: tuple[int, ...]


def ctc_loss(log_probs: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> CTCLoss:
    """CTC loss of `labels` under `log_probs` (batch, frames, labels + 1), blank last."""
    feasible = [needed_frames(row) <= length for row, length in zip(labels, lengths.tolist(), strict=True)]
    keep = [row for row, fits in enumerate(feasible) if fits]
    infeasible = tuple(row for row, fits in enumerate(feasible) if not fits)
    if not keep:
        return CTCLoss(log_probs.sum() * 0.0, 0, infeasible)
    targets = torch.tensor([label for row in keep for label in labels[row]], dtype=torch.long)
    total = nn.functional.ctc_loss(
        log_probs[keep].transpose(0, 1),
        targets.to(log_probs.device),
        lengths[keep].cpu(),
        torch.tensor([len(labels[row]) for row in keep]),
        blank=log_probs.shape[2] - 1,
        reduction="sum",
    )
    return CTCLoss(total, len(targets), infeasible)


def needed_frames(labels: Sequence[int]) -> int:
    """Fewest frames in which CTC can write `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))
