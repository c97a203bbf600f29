"""What a threshold on the confidence would keep, and how wrong that is: the curve by which to choose one.

Utterances with confidences go in, groups of equal size come out, the surest first, each with the errors of its own, of
everything at least as sure, and of everything less so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum

from kikitori.scoring.metrics import ErrorCounts

GROUPS = 10


@dataclass(frozen=True)
class ScoredUtterance:
    """An utterance whose text was recognised, with its errors in words or characters if it has a reference."""

    confidence: float
    seconds: float
    errors: ErrorCounts | None = None


@dataclass(frozen=True)
class ConfidenceBin:
    """Utterances of similar confidence; errors are None where none of them has a reference.

    Attributes:
        lowest: The least of their confidences: a threshold that keeps these and all surer ones.
        kept: The errors of these and of all surer ones; None without a reference.
        left_out: The errors of all others; None without a reference.
    """

    lowest: float
    utterances: int
    seconds: float
    errors: ErrorCounts | None
    kept: ErrorCounts | None
    left_out: ErrorCounts | None


def by_confidence(utterances: Sequence[ScoredUtterance], groups: int = GROUPS) -> list[ConfidenceBin]:
    """Utterances in at most `groups` of equal size, the surest first; equal confidences are never parted."""
    ordered = sorted(utterances, key=lambda each: -each.confidence)
    edges = [0]
    for number in range(1, groups + 1):
        edge = -(-number * len(ordered) // groups)
        while 0 < edge < len(ordered) and ordered[edge].confidence == ordered[edge - 1].confidence:
            edge += 1
        if edge > edges[-1]:
            edges.append(edge)
    return [
        ConfidenceBin(
            lowest=ordered[stop - 1].confidence,
            utterances=stop - start,
            seconds=fsum(each.seconds for each in ordered[start:stop]),
            errors=total_errors(ordered[start:stop]),
            kept=total_errors(ordered[:stop]),
            left_out=total_errors(ordered[stop:]),
        )
        for start, stop in pairwise(edges)
    ]


def total_errors(utterances: Sequence[ScoredUtterance]) -> ErrorCounts | None:
    """The errors of all utterances that have a reference; None if none has."""
    counts = [each.errors for each in utterances if each.errors is not None]
    return sum(counts, ErrorCounts()) if counts else None
