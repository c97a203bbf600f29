import pytest

from kikitori.decoding.limits import SLACK, max_labels


@pytest.mark.parametrize(
    ("seconds", "labels_per_second", "expected"),
    [(0.0, 10.0, 20), (1.0, 10.0, 32), (1.0, 10.1, 33), (0.01, 4.0, 21), (30.0, 25.0, 920), (2.5, 4.0, 32)],
)
def test_formula(seconds, labels_per_second, expected):
    assert max_labels(seconds, labels_per_second) == expected


def test_never_below_the_slack_and_never_falling():
    limits = [max_labels(seconds / 10, 12.5) for seconds in range(300)]
    assert limits[0] == SLACK
    assert limits == sorted(limits)
    assert all(limit >= 12.5 * seconds / 10 for seconds, limit in enumerate(limits))
