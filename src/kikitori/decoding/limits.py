"""How long a transcript may get: a bound from the duration of the speech, which ends runaway decoding."""

from math import ceil

SLACK = 20


def max_labels(seconds: float, labels_per_second: float) -> int:
    """Most labels for so much speech: ceil(1.2 r s) + 20.

    Args:
        seconds: Duration of the speech.
        labels_per_second: The highest rate seen in training, r. Paper A's rule 4 s + 20 suits only its own 32k
            vocabulary (papers.md A3): smaller units would be cut off.
    """
    return ceil(1.2 * labels_per_second * seconds) + SLACK
