"""Error counts against a brute-force edit distance, and the laws that corpus rates obey."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scoring.metrics import (
    ErrorCounts,
    align_words,
    char_errors,
    confidence_interval,
    count_errors,
    word_errors,
)

UNITS = st.lists(st.sampled_from(["a", "b", "c", "が"]), max_size=7)
COUNTS = st.lists(
    st.builds(ErrorCounts, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 20)), max_size=12
)


def brute_force(reference: list[str], prediction: list[str]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        differs = reference[i - 1] != prediction[j - 1]
        return min(distance(i - 1, j - 1) + differs, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(prediction))


@settings(deadline=None)
@given(UNITS, UNITS)
def test_counts_are_minimal_and_add_up(reference: list[str], prediction: list[str]) -> None:
    counts = count_errors(reference, prediction)
    assert counts.errors == brute_force(reference, prediction)
    assert counts.reference_length == len(reference)
    assert len(prediction) == len(reference) - counts.deletions + counts.insertions
    assert min(counts.substitutions, counts.deletions, counts.insertions) >= 0


@settings(deadline=None)
@given(UNITS, UNITS)
def test_alignment_spells_both_texts_with_as_many_errors(reference: list[str], prediction: list[str]) -> None:
    pairs = align_words(" ".join(reference), " ".join(prediction))
    assert [left for left, _ in pairs if left is not None] == reference
    assert [right for _, right in pairs if right is not None] == prediction
    assert sum(left != right for left, right in pairs) == brute_force(reference, prediction)


def test_known_counts() -> None:
    assert word_errors("the cat sat on the mat", "a cat on the the mat") == ErrorCounts(1, 1, 1, 6)
    assert char_errors("a bc  d", "abx d") == ErrorCounts(1, 0, 0, 4)
    assert char_errors("が", "か") == ErrorCounts(1, 0, 0, 1)
    assert align_words("a b", "a c d")[0] == ("a", "a")
    assert align_words("", "") == []


@pytest.mark.parametrize(
    ("counts", "rate"), [(ErrorCounts(), 0.0), (ErrorCounts(insertions=3), 1.0), (ErrorCounts(1, 1, 1, 2), 1.5)]
)
def test_rate_is_a_number_that_json_has(counts: ErrorCounts, rate: float) -> None:
    assert json.loads(json.dumps(counts.rate, allow_nan=False)) == rate


@settings(deadline=None)
@given(COUNTS, st.randoms(use_true_random=False))
def test_order_of_utterances_is_irrelevant(counts: list[ErrorCounts], rng: object) -> None:
    shuffled = list(counts)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    total = sum(counts, ErrorCounts())
    assert total == sum(shuffled, ErrorCounts())
    assert total.errors == sum(count.errors for count in counts)
    interval = confidence_interval(counts, resamples=50)
    assert interval == confidence_interval(shuffled, resamples=50)
    assert 0 <= interval[0] <= interval[1] < float("inf")


def test_interval_covers_the_rate_and_narrows_with_data() -> None:
    few = [ErrorCounts(index % 3, 0, 0, 10) for index in range(12)]
    low, high = confidence_interval(few)
    assert low < sum(few, ErrorCounts()).rate < high
    narrow_low, narrow_high = confidence_interval(few * 25)
    assert (narrow_high - narrow_low) < (high - low) / 3
    assert confidence_interval([ErrorCounts(1, 0, 0, 4)] * 9) == (0.25, 0.25)
    assert confidence_interval([]) == (0.0, 0.0)
    assert confidence_interval([ErrorCounts(insertions=2)]) == (1.0, 1.0)


def test_interval_is_the_plain_bootstrap() -> None:
    import numpy as np

    counts = [ErrorCounts(index % 4, index % 2, 0, 5 + index % 7) for index in range(60)]
    pairs = np.array([(count.errors, count.reference_length) for count in counts])
    sums = pairs[np.random.default_rng(1).integers(60, size=(20_000, 60))].sum(axis=1)
    expected = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    assert confidence_interval(counts, resamples=20_000) == pytest.approx(tuple(expected), abs=0.005)
