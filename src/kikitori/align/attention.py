"""When the labels of a text are said, by the cross-attention of an encoder-decoder that writes them.

Some heads of Whisper's decoder follow the speech: where they attend to while a label is written is where it is said.
Their weights are normalised over the labels, smoothed over the frames and averaged, and dynamic time warping finds the
best monotone path through them (Radford et al. 2022; the code of OpenAI and of transformers).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from kikitori.align.words import timed_words
from kikitori.compiled import compiled
from kikitori.types import Word

LEAST_DEVIATION = 1e-10  # of a frame that all labels attend to alike


def attention_words(
    weights: Tensor,
    log_probs: Sequence[float],
    places: Sequence[int],
    text: str,
    language: str | None,
    *,
    median_width: int,
    seconds: float,
    seconds_per_frame: float,
    first_frame: float = 0.0,
) -> tuple[Word, ...]:
    """The words of a text with their times and confidences, inside the utterance, none before another's end.

    Args:
        weights: Of the heads that follow the speech, (heads, 1 + labels, frames): when the last label of the prompt is
            read, which writes the first one, and when each label is read. Frames of the utterance alone.
        log_probs: Of each label, given those before it.
        places: Where in the text the last character of each label is, rising.
        text: What is said, not empty.
        language: Of the text; decides what a word is.
        median_width: Frames that are smoothed over, odd.
        seconds: Duration of the utterance.
        seconds_per_frame: Distance of the frames.
        first_frame: When the sound begins that the first of them is about, in seconds.

    Returns:
        A word for each of `split_words`. The confidence is the geometric mean of the probabilities of its labels.
    """
    at = (first_frame + attention_jumps(weights, median_width) * seconds_per_frame).tolist()
    spans = [*pairwise(at)]
    return timed_words(spans, log_probs, places, text, language, seconds=seconds)


def attention_jumps(weights: Tensor, median_width: int) -> NDArray[np.int64]:
    """The frame at which the path through attention weights (heads, rows, frames) comes to each row, (rows,)."""
    values = weights.float()
    deviation = values.std(dim=1, keepdim=True, unbiased=False).clamp(min=LEAST_DEVIATION)
    values = _median((values - values.mean(dim=1, keepdim=True)) / deviation, median_width).mean(dim=0)
    jumps = np.zeros(len(values), np.int64)
    _warp(-values.double().cpu().numpy(), jumps)
    return jumps


def _median(values: Tensor, width: int) -> Tensor:
    """The running median over the last dimension, mirrored at its ends; too few values stay as they are."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    return pad(values, (half, half), mode="reflect").unfold(-1, width, 1).sort(dim=-1).values[..., half]


@compiled
def _warp(costs: NDArray[np.float64], jumps: NDArray[np.int64]) -> None:
    """Writes the first frame of each row on the cheapest monotone path through costs (rows, frames) to `jumps`."""
    rows, frames = costs.shape
    totals = np.full((rows + 1, frames + 1), np.inf, np.float32)
    steps = np.zeros((rows + 1, frames + 1), np.int8)  # 0: next row and frame, 1: next row, 2: next frame
    totals[0, 0] = 0.0
    for frame in range(1, frames + 1):
        for row in range(1, rows + 1):
            both, up, along = totals[row - 1, frame - 1], totals[row - 1, frame], totals[row, frame - 1]
            if both < up and both < along:
                best, steps[row, frame] = both, 0
            elif up < both and up < along:
                best, steps[row, frame] = up, 1
            else:
                best, steps[row, frame] = along, 2
            totals[row, frame] = np.float32(costs[row - 1, frame - 1] + np.float64(best))
    row, frame = rows, frames
    while row > 0:
        jumps[row - 1] = frame - 1
        step = steps[row, frame]
        if step != 1:
            frame -= 1
        if step != 2:
            row -= 1
