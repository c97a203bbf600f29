"""CTC greedy decoding: the best output of every frame, repeats merged, blanks dropped."""

from collections.abc import Sequence

from torch import Tensor


def collapse(frame_labels: Sequence[int], blank_id: int) -> list[int]:
    """The CTC mapping from one output per frame to labels: merge repeats, then drop blanks."""
    previous = [None, *frame_labels]
    return [label for label, before in zip(frame_labels, previous, strict=False) if label not in (before, blank_id)]


def ctc_greedy(log_probs: Tensor, lengths: Tensor) -> list[tuple[list[int], float]]:
    """Labels and log-probability of the best path of each utterance.

    Args:
        log_probs: (batch, frames, labels + 1), blank last.
        lengths: Valid frames, (batch,).
    """
    scores, best = log_probs.max(dim=-1)
    blank_id = log_probs.shape[2] - 1
    return [
        (collapse(row[:length], blank_id), float(score[:length].double().sum()))
        for row, score, length in zip(best.tolist(), scores, lengths.tolist(), strict=True)
    ]
