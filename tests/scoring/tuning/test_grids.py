import pytest

from kikitori.errors import ConfigError
from kikitori.scoring.tuning.grids import Grid, parse_grid
from kikitori.scoring.tuning.scales import read_lists, tune
from tests.scoring.tuning.test_scales import CTC, NAMES, random_sets


def test_grids_from_text():
    assert parse_grid("lm=0:1:0.1") == ("lm", Grid(0.0, 1.0, 0.1))
    assert parse_grid("prior=-0.5") == ("prior", Grid(-0.5, -0.5))
    assert parse_grid("ctc=1") == ("ctc", CTC)
    assert Grid(0.0, 1.0, 0.1).values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert Grid(0.0, 1.0, 0.4).values == (0.0, 0.4, 0.8)
    assert Grid(-0.5, -0.5).values == (-0.5,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *((text, "no grid of scales; write") for text in ("lm", "lm=", "=1", "lm=a", "lm=0:1", "lm=0:1:2:3", "lm=nan")),
        *((text, "a grid without points") for text in ("lm=1:0:0.1", "lm=0:1:0", "lm=0:1:-1")),
        *((text, "the scale of ctc is 1") for text in ("ctc=0.5", "ctc=0:1:0.1")),
    ],
)
def test_grids_that_are_none(text, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_grid(text)


def test_too_many_points():
    lists = read_lists(random_sets(0), NAMES)
    for steps in (1e-3, 1e-300):
        with pytest.raises(ConfigError, match=r"points are more than 200000; give larger steps"):
            tune(lists, {"ctc": CTC, "lm": Grid(0.0, 1.0, steps), "prior": Grid(-1.0, 0.0, steps)})
    with pytest.raises(ConfigError, match="lm 200001 points"):
        tune(lists, {"ctc": CTC, "lm": Grid(-1e308, 1e308, 1.0), "prior": CTC})
