import sys

import numpy as np
import pytest

from kikitori.scoring.tuning.heat_map import draw_heat_map

LM, PRIOR = [0.0, 0.5, 1.0], [-1.0, 0.0]


@pytest.mark.parametrize(
    ("axes", "best"), [({"lm": LM, "prior": PRIOR}, [0.25, -1.0]), ({"lm": LM}, [0.5]), ({"l": [0.0]}, [0.0])]
)
def test_a_picture(axes, best, tmp_path):
    rates = np.random.default_rng(0).random([len(values) for values in axes.values()])
    assert draw_heat_map(tmp_path / "p.png", axes, rates, best, "title")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_many_cells_and_equal_rates(tmp_path):
    values = np.linspace(0, 1, 70).tolist()
    assert draw_heat_map(tmp_path / "p.png", {"lm": values, "prior": values}, np.full((70, 70), 0.5), [0.3, 1.0], "")


def test_the_first_axis_goes_to_the_right(tmp_path, monkeypatch):
    shown = []
    from matplotlib.axes import Axes

    real = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda panel, cells, **more: shown.append(cells) or real(panel, cells, **more))
    rates = np.arange(6.0).reshape(3, 2)
    assert draw_heat_map(tmp_path / "p.png", {"lm": LM, "prior": PRIOR}, rates, [0.0, 0.0], "")
    assert shown[0].tolist() == (100 * rates.T).tolist()


def test_without_matplotlib_there_is_no_picture_and_no_error(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not draw_heat_map(tmp_path / "p.png", {"lm": LM}, np.zeros(3), [0.0], "")
    assert not (tmp_path / "p.png").exists()
