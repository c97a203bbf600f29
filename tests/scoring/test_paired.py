"""Paired comparison of two systems."""

import numpy as np
import pytest

from kikitori.errors import DataError
from kikitori.scoring.metrics import ErrorCounts
from kikitori.scoring.paired import compare

OTHER = [ErrorCounts(index % 4, index % 2, 0, 5 + index % 7) for index in range(60)]


def with_fewer(every: int) -> list[ErrorCounts]:
    """The same utterances, one error less in some that have any."""
    return [
        ErrorCounts(each.substitutions - 1, each.deletions, 0, each.reference_length)
        if each.substitutions and index % every == 0
        else each
        for index, each in enumerate(OTHER)
    ]


def test_the_interval_is_the_plain_bootstrap_over_pairs():
    system = with_fewer(3)
    found = compare(OTHER, system)
    pairs = np.array([(b.errors - a.errors, a.reference_length) for a, b in zip(OTHER, system, strict=True)])
    sums = pairs[np.random.default_rng(1).integers(60, size=(20_000, 60))].sum(axis=1)
    assert found.interval == pytest.approx(np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5]), abs=0.003)
    assert found.change == pytest.approx(sum(system, ErrorCounts()).rate - sum(OTHER, ErrorCounts()).rate)
    assert (found.better, found.worse) == (15, 0)
    assert found.interval[1] < 0.0


def test_turned_round_the_change_has_the_other_sign():
    there, back = compare(OTHER, with_fewer(2)), compare(with_fewer(2), OTHER)
    assert back.change == -there.change
    assert (back.better, back.worse) == (there.worse, there.better)
    assert back.p_value == there.p_value
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]), abs=0.002)


def test_the_matched_pairs_test_is_that_of_the_textbook():
    # Differences -1, -1, -1, 0: mean -0.75, standard deviation 0.5, Z = -0.75 / (0.5 / 2) = -3.
    rows = [ErrorCounts(2, 0, 0, 10)] * 4
    better = [ErrorCounts(1, 0, 0, 10)] * 3 + [ErrorCounts(2, 0, 0, 10)]
    assert compare(rows, better).p_value == pytest.approx(0.0026998, abs=1e-6)
    assert compare(rows, rows) == compare(rows, [*reversed(rows)])
    assert compare(rows, [ErrorCounts(1, 0, 0, 10)] * 4).p_value == 0.0
    assert compare(rows[:1], better[:1]).p_value == 1.0
    assert (compare(rows, rows).p_value, compare(rows, rows).interval) == (1.0, (0.0, 0.0))


@pytest.mark.parametrize("system", [OTHER[:-1], [*reversed(OTHER)], []])
def test_other_utterances_are_refused(system):
    with pytest.raises(DataError, match="compared on other utterances"):
        compare(OTHER, system)


def test_no_words_are_refused():
    with pytest.raises(DataError, match="or on none"):
        compare([], [])
