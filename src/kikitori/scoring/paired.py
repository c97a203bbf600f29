"""Whether one system makes fewer errors than another on the same utterances: paired bootstrap and matched pairs.

Most of the variance of an error rate comes from the utterances, which two systems share; differences, utterance by
utterance, say more than two intervals side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import DataError
from kikitori.scoring.metrics import ErrorCounts


@dataclass(frozen=True)
class Comparison:
    """How the error rate of a system differs from that of another one.

    Attributes:
        change: Its rate minus the other's, both over the whole corpus; below 0 it is better.
        interval: 95 % interval of the change, percentiles of the paired bootstrap (Bisani and Ney 2004).
        p_value: Two-sided, of the matched-pairs test with utterances as segments (Gillick and Cox 1989); 1.0 where no
            utterance differs, or there is one alone.
        better: Utterances with fewer errors.
        worse: Utterances with more.
    """

    change: float
    interval: tuple[float, float]
    p_value: float
    better: int
    worse: int


def compare(
    other: Sequence[ErrorCounts], system: Sequence[ErrorCounts], *, seed: int = 0, resamples: int = 10_000
) -> Comparison:
    """Compares a system with another one by the errors of each utterance, in the same order.

    Utterances count as independent; with few speakers the true interval is wider.

    Raises:
        DataError: There are no words, or the utterances are not the same.
    """
    lengths = np.array([count.reference_length for count in other], dtype=np.int64)
    if [count.reference_length for count in system] != lengths.tolist() or not lengths.sum():
        raise DataError(
            "two systems are compared on other utterances, or on none", remedy="score both on the same rows"
        )
    differences = np.array([b.errors - a.errors for a, b in zip(other, system, strict=True)], dtype=np.int64)
    # Drawing how often each distinct pair occurs is the same bootstrap with far less to draw.
    distinct, occurrences = np.unique(np.stack([differences, lengths], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(lengths), occurrences / len(lengths), size=resamples)
    sums = drawn @ distinct  # (resamples, 2)
    low, high = np.percentile(sums[:, 0] / np.maximum(sums[:, 1], 1), [2.5, 97.5])
    return Comparison(
        change=float(differences.sum() / lengths.sum()),
        interval=(float(low), float(high)),
        p_value=_matched_pairs(differences),
        better=int((differences < 0).sum()),
        worse=int((differences > 0).sum()),
    )


def _matched_pairs(differences: NDArray[np.int64]) -> float:
    """The two-sided p-value of the mean of differences, by the normal distribution."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    error = float(differences.std(ddof=1)) / sqrt(len(differences))
    return erfc(abs(float(differences.mean())) / error / sqrt(2.0)) if error else 0.0
