"""CTC forced alignment: the frames in which a known label sequence is written on the best path."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kikitori.model.heads import needed_frames


def ctc_align(log_probs: NDArray[np.float32], labels: Sequence[int]) -> list[tuple[int, int]] | None:
    """First frame of each label and the one after its last, on the most probable path that writes the labels.

    Args:
        log_probs: (frames, labels + 1), blank last.
        labels: What is written.

    Returns:
        One pair for each label, in order and without overlap; None if the labels do not fit into the frames.
    """
    num_frames, blank = len(log_probs), log_probs.shape[1] - 1
    if needed_frames(labels) > num_frames:
        return None
    if not labels:
        return []
    # States: blank, label, blank, label, ..., blank. A path stays, goes on by one, or skips a blank.
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probs[:, states].astype(np.float64)
    steps = np.zeros((num_frames, len(states)), dtype=np.int8)
    scores = np.full(len(states), -np.inf)
    scores[:2] = emitted[0, :2]
    for frame in range(1, num_frames):
        candidates = np.full((3, len(states)), -np.inf)
        candidates[0] = scores
        candidates[1, 1:] = scores[:-1]
        candidates[2, 2:] = np.where(may_skip[2:], scores[:-2], -np.inf)
        steps[frame] = candidates.argmax(axis=0)
        scores = candidates.max(axis=0) + emitted[frame]
    state = len(states) - 1 if scores[-1] > scores[-2] else len(states) - 2
    path = np.empty(num_frames, dtype=np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    starts = np.searchsorted(path, 2 * np.arange(len(labels)) + 1)
    ends = np.searchsorted(path, 2 * np.arange(len(labels)) + 1, side="right")
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
