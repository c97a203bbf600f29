"""How long a transcript may get: a bound from the duration of the speech, which ends runaway decoding.

Speech whose prefix and longest transcript exceed what the LLM was made for is refused before it is decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from kikitori.search.windows import most_said
from kikitori.types import TrainedOn

SLACK = 20
NUE_ASR_LABELS_PER_SECOND = 4


@dataclass(frozen=True)
class Limits:
    """How many labels a transcript may have, EOS not counted.

    Attributes:
        max_labels: Most labels of each utterance; stronger than `min_labels`.
        min_labels: The end is ruled out while a hypothesis has fewer labels.
    """

    max_labels: Sequence[int]
    min_labels: int = 0


def label_limit(seconds: float, trained_on: TrainedOn) -> int:
    """Most labels for so much speech, by the rule that belongs to the model."""
    match trained_on.length_rule:
        case "label_rate":
            return max_labels(seconds, trained_on.labels_per_second)
        case "nue_asr":
            return nue_asr_max_labels(seconds)
        case "window":
            return round(trained_on.labels_per_second * trained_on.max_seconds)
        case "speech_window":  # what has more goes on behind the speech, and is decoded again
            return min(round(trained_on.labels_per_second * trained_on.max_seconds), most_said(seconds) + 1)


def max_labels(seconds: float, labels_per_second: float) -> int:
    """Most labels for so much speech: ceil(1.2 r s) + 20, r being the highest rate of labels per second in training.

    Paper A's rule 4 s + 20 suits only its own 32k vocabulary (papers.md A3): smaller units would be cut off.
    """
    return ceil(1.2 * labels_per_second * seconds) + SLACK


def nue_asr_max_labels(seconds: float) -> int:
    """The rule of paper A's release, for its own vocabulary: 4 s + 20, rounded half up."""
    return int(NUE_ASR_LABELS_PER_SECOND * seconds + SLACK + 0.5)


def overrun(seconds: float, prefix: int, labels: int, most: int | None) -> str | None:
    """What is wrong with speech that the LLM has too few (`most`) positions for; None if it fits.

    `prefix` are the positions before the first of at most so many labels, those of the speech among them.
    """
    if most is None or prefix + labels <= most:
        return None
    return (
        f"{seconds:.1f} s of speech take {prefix} LLM positions with the prompt, and up to {labels} labels follow;"
        f" the LLM has {most} positions"
    )
