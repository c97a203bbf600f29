"""CTC greedy decoding: the best output of every frame, repeats merged, blanks dropped."""

from collections.abc import Sequence

from torch import Tensor

from kikitori.scorers.options import CTC
from kikitori.types import Hypothesis, NBest


def collapse(frame_labels: Sequence[int], blank_id: int) -> list[int]:
    """The CTC mapping from one output per frame to labels: merge repeats, then drop blanks."""
    previous = [None, *frame_labels]
    return [label for label, before in zip(frame_labels, previous, strict=False) if label not in (before, blank_id)]


def ctc_greedy(log_probs: Tensor, num_frames: Tensor) -> list[NBest]:
    """The best path of each utterance, whose log-probability is its score.

    Log-probabilities are (batch, frames, labels + 1), blank last; `num_frames` (batch,) are valid.
    """
    scores, best = log_probs.max(dim=-1)
    blank_id = log_probs.shape[2] - 1
    found: list[NBest] = []
    for row, score, length in zip(best.tolist(), scores, num_frames.tolist(), strict=True):
        total = float(score[:length].double().sum())
        found.append((Hypothesis(tuple(collapse(row[:length], blank_id)), score=total, scores={CTC: total}),))
    return found
