"""Word and character error counts, their confidence interval, and word alignments.

Normalized references and predictions go in, counts come out. Counts of a corpus are the sum of the counts of its
utterances, and its rate is the rate of that sum. Costs are 1 for each substitution, deletion and insertion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kikitori.text.normalize import WITHOUT_WORDS, normalize


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of a prediction, or of a whole corpus, against its reference of `reference_length` units."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    @property
    def errors(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit (0.25, not percent); against an empty reference 1.0 if there are any, else 0.0."""
        if self.reference_length == 0:
            return float(self.errors > 0)
        return self.errors / self.reference_length

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )


def count_errors(reference: Sequence[str], prediction: Sequence[str]) -> ErrorCounts:
    """Counts the errors of a best alignment; time grows with the product of the lengths, memory does not.

    Where both begin or end alike they are aligned so, which no alignment betters, and only what is between is searched.
    """
    import kaldialign

    shorter = min(len(reference), len(prediction))
    start = end = 0
    while start < shorter and reference[start] == prediction[start]:
        start += 1
    while end < shorter - start and reference[-1 - end] == prediction[-1 - end]:
        end += 1
    said, written = reference[start : len(reference) - end], prediction[start : len(prediction) - end]
    if not (said and written):
        return ErrorCounts(0, len(said), len(written), len(reference))
    counts = kaldialign.edit_distance(said, written)
    return ErrorCounts(counts["sub"], counts["del"], counts["ins"], len(reference))


def word_errors(ref: str, pred: str) -> ErrorCounts:
    """Counts errors in words, which white space separates."""
    return count_errors(ref.split(), pred.split())


def char_errors(ref: str, pred: str) -> ErrorCounts:
    """Counts errors in characters; white space does not count."""
    return count_errors("".join(ref.split()), "".join(pred.split()))


def counted_errors(normalizer: str, reference: str, prediction: str) -> ErrorCounts:
    """Counts errors of raw texts in words, or in characters where the normalizer leaves no words."""
    count = char_errors if normalizer in WITHOUT_WORDS else word_errors
    return count(normalize(normalizer, reference), normalize(normalizer, prediction))


def align_words(ref: str, pred: str) -> list[tuple[str | None, str | None]]:
    """Pairs the words of a best alignment; None stands for the missing side of a deletion or insertion.

    Needs about four bytes per pair of words, 400 MB for two texts of 10,000 words.
    """
    import kaldialign

    pairs = kaldialign.align(ref.split(), pred.split(), "")  # no word is empty
    return [(left or None, right or None) for left, right in pairs]


def confidence_interval(counts: Sequence[ErrorCounts], *, seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the corpus rate, resampling utterances.

    Utterances count as independent; with few speakers the true interval is wider. The order of `counts` is irrelevant.
    No counts at all give (0.0, 0.0).
    """
    import numpy as np

    if not counts:
        return 0.0, 0.0
    pairs = np.array([(c.errors, c.reference_length) for c in counts], dtype=np.int64)
    # Drawing how often each distinct pair occurs is the same bootstrap with far less to draw.
    distinct, occurrences = np.unique(pairs, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(counts), occurrences / len(counts), size=resamples)
    sums = drawn @ distinct  # (resamples, 2)
    errors, lengths = sums[:, 0], sums[:, 1]
    rates = np.where(lengths > 0, errors / np.maximum(lengths, 1), errors > 0)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
