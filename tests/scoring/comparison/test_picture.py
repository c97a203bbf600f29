"""The picture of error rates and speed."""

import itertools
import random

import pytest

from kikitori.scoring.comparison.compare import compare
from kikitori.scoring.comparison.picture import HEIGHT, WIDTH, draw, pareto
from tests.scoring.comparison.systems import LARGE, SMALL, system


def test_the_front_is_what_no_other_beats():
    rng = random.Random(1)  # noqa: S311
    for _ in range(50):
        systems = [(rng.randrange(5), rng.randrange(5)) for _ in range(6)]
        beaten = {
            (a, b)
            for (a, b), (c, d) in itertools.product(systems, repeat=2)
            if (c >= a and d < b) or (c > a and d <= b)
        }
        assert pareto(systems) == [each not in beaten for each in systems]


def test_points_lie_where_their_values_are():
    worst = system("", "", "", "", time=0.5)
    picture = draw(compare({"small": {"x": SMALL}, "large": {"x": LARGE}, "worst": {"x": worst}}))
    small, large, bad = picture.points
    assert bad.x < large.x < small.x  # faster to the right
    assert large.y > small.y > bad.y  # better at the bottom
    assert [point.front for point in picture.points] == [True, True, False]
    assert all(0.0 < point.x < WIDTH and 0.0 < point.y < HEIGHT for point in picture.points)
    assert picture.x_marks
    assert picture.y_marks


@pytest.mark.parametrize("time", [0.1, 0.0])
def test_equal_systems_and_systems_without_times(time):
    same = system("a", "b", "c", "d", time=time)
    picture = draw(compare({"a": {"x": same}, "b": {"x": same}}))
    assert (picture is None) == (time == 0.0)
    if picture is not None:
        assert [point.label_y - point.y for point in picture.points] == [0.0, -12.0]
