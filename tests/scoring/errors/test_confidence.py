import pytest

from kikitori.scoring.errors.confidence import ScoredUtterance, by_confidence, total_errors
from kikitori.scoring.metrics import ErrorCounts


def judged(confidence, wrong=None, words=10):
    return ScoredUtterance(
        confidence, 2.0, None if wrong is None else ErrorCounts(substitutions=wrong, reference_length=words)
    )


def test_groups_by_hand():
    rows = [judged(-2.0, 9), judged(-0.1, 0), judged(-1.0, 5), judged(-0.5, 2)]
    surest, least = by_confidence(rows, groups=2)
    assert (surest.lowest, surest.utterances, surest.seconds) == (-0.5, 2, 4.0)
    assert (surest.errors.rate, surest.kept.rate, surest.left_out.rate) == (0.1, 0.1, 0.7)
    assert (least.lowest, least.errors.rate, least.kept.rate, least.left_out) == (-2.0, 0.7, 0.4, None)
    assert [group.lowest for group in by_confidence(rows[::-1], groups=2)] == [-0.5, -2.0]


@pytest.mark.parametrize(("count", "sizes"), [(25, [3, 2, 3, 2, 3, 2, 3, 2, 3, 2]), (3, [1, 1, 1]), (1, [1]), (0, [])])
def test_groups_are_of_equal_size_and_hold_everything(count, sizes):
    groups = by_confidence([judged(-float(number)) for number in range(count)])
    assert [group.utterances for group in groups] == sizes
    assert {group.errors for group in groups} <= {None}


def test_equal_confidences_stay_together():
    groups = by_confidence([judged(value) for value in (-1.0, -1.0, -1.0, -1.0, -2.0, -3.0)], groups=3)
    assert [(group.lowest, group.utterances) for group in groups] == [(-1.0, 4), (-3.0, 2)]


def test_rows_without_a_reference_count_as_utterances_alone():
    (group,) = by_confidence([judged(-1.0, 3), judged(-2.0)], groups=1)
    assert (group.utterances, group.errors) == (2, ErrorCounts(substitutions=3, reference_length=10))
    assert total_errors([judged(-1.0)]) is None
