"""CTC forced alignment: the frames in which a known label sequence is written on the best path."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled
from kikitori.errors import ModelError
from kikitori.model.heads import needed_frames


def ctc_align(log_probs: NDArray[np.float32], labels: Sequence[int]) -> list[tuple[int, int]] | None:
    """First frame of each label and the one after its last, on the most probable path that writes the labels.

    The Viterbi path through the label sequence with blanks around every label (Graves et al. 2006, figure 3).
    Log-probabilities are (frames, labels + 1), blank last. One pair for each label, in order and without overlap; None
    if the labels do not fit into the frames.

    Raises:
        ModelError: A label is none of the head's, as those of a decoder with other units are not.
    """
    if any(not 0 <= label < log_probs.shape[1] - 1 for label in labels):
        what = f"label {max(labels)} is none of the CTC head's {log_probs.shape[1] - 1}"
        raise ModelError(what, remedy="encode the text in the units of the CTC head")
    if needed_frames(labels) > len(log_probs):
        return None
    if not labels:
        return []
    spans = np.zeros((len(labels), 2), np.int64)
    _viterbi(np.ascontiguousarray(log_probs, np.float32), np.array(labels, np.int64), spans)
    return [(start, stop) for start, stop in spans.tolist()]


@compiled
def _viterbi(log_probs: NDArray[np.float32], labels: NDArray[np.int64], spans: NDArray[np.int64]) -> None:
    """Writes the first frame of each label and the one after its last to `spans`, (labels, 2)."""
    # States: blank, label, blank, label, ..., blank. A path stays, goes on by one, or skips a blank.
    frames, blank, states = len(log_probs), log_probs.shape[1] - 1, 2 * len(labels) + 1
    scores, before = np.full(states, -np.inf), np.full(states, -np.inf)
    steps = np.zeros((frames, states), np.int8)
    scores[0], scores[1] = log_probs[0, blank], log_probs[0, labels[0]]
    for frame in range(1, frames):
        scores, before = before, scores
        for state in range(states):
            best, step, output = before[state], 0, blank
            if state >= 1 and before[state - 1] > best:
                best, step = before[state - 1], 1
            if state % 2:
                output = labels[state // 2]
                if state >= 3 and output != labels[state // 2 - 1] and before[state - 2] > best:
                    best, step = before[state - 2], 2
            steps[frame, state] = step
            scores[state] = best + log_probs[frame, output]
    state = states - 1 if scores[states - 1] > scores[states - 2] else states - 2
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            label = state // 2
            spans[label, 0] = frame
            spans[label, 1] = max(spans[label, 1], frame + 1)
        state -= steps[frame, state]
