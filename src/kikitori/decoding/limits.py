"""How long a transcript may get: a bound from the duration of the speech, which ends runaway decoding."""

from math import ceil

from kikitori.types import TrainedOn

SLACK = 20
NUE_ASR_LABELS_PER_SECOND = 4


def label_limit(seconds: float, trained_on: TrainedOn) -> int:
    """Most labels for so much speech, by the rule that belongs to the model."""
    match trained_on.length_rule:
        case "label_rate":
            return max_labels(seconds, trained_on.labels_per_second)
        case "nue_asr":
            return nue_asr_max_labels(seconds)


def max_labels(seconds: float, labels_per_second: float) -> int:
    """Most labels for so much speech: ceil(1.2 r s) + 20.

    Args:
        seconds: Duration of the speech.
        labels_per_second: The highest rate seen in training, r. Paper A's rule 4 s + 20 suits only its own 32k
            vocabulary (papers.md A3): smaller units would be cut off.
    """
    return ceil(1.2 * labels_per_second * seconds) + SLACK


def nue_asr_max_labels(seconds: float) -> int:
    """The rule of paper A's release, for its own vocabulary: 4 s + 20, rounded half up."""
    return int(NUE_ASR_LABELS_PER_SECOND * seconds + SLACK + 0.5)
