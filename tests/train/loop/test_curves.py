import json
import sys

import pytest

from kikitori.train.loop import curves
from kikitori.train.loop.curves import draw_curves


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def step_row(step, loss, **more):
    return {
        "epoch": step / 10,
        "step": step,
        "loss": loss,
        "ctc2": loss / 2,
        "grad_norm": 1.0,
        "lr": 0.1,
        "time": 1.0,
    } | more


@pytest.fixture
def drawn(monkeypatch):
    """What goes into each panel."""
    found = []
    real = curves._draw

    def draw(panel, group, finals):
        found.append((group, finals))
        real(panel, group, finals)

    monkeypatch.setattr(curves, "_draw", draw)
    return found


def test_losses_and_scores_over_epochs(tmp_path, drawn):
    rows = [step_row(5, 4.0), step_row(10, 3.0), {"epoch": 1, "step": 10, "dev_wer": 0.5, "time": 1.0}]
    rows += [step_row(15, 2.0), {"epoch": 2, "step": 20, "dev_wer": 0.25, "time": 1.0}, {"step": 20, "final_wer": 0.2}]
    assert draw_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    (losses, no_finals), (scores, finals) = drawn
    assert losses == {"loss": [(0.5, 4.0), (1.0, 3.0), (1.5, 2.0)], "ctc2": [(0.5, 2.0), (1.0, 1.5), (1.5, 1.0)]}
    assert scores == {"wer": [(1.0, 0.5), (2.0, 0.25)]}
    assert (no_finals, finals) == ({}, {"wer": 0.2})


def test_a_run_without_dev_scores_has_one_panel(tmp_path, drawn):
    assert draw_curves(write(tmp_path / "metrics.jsonl", [step_row(5, 4.0)]), tmp_path / "curves.png")
    assert [group for group, _ in drawn] == [{"loss": [(0.5, 4.0)], "ctc2": [(0.5, 2.0)]}]


def test_a_loss_of_one_part_is_drawn_once(tmp_path, drawn):
    rows = [step_row(5, 4.0, ctc2=4.0), step_row(10, 2.0, ctc2=2.0)]
    assert draw_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert list(drawn[0][0]) == ["ctc2"]


def test_steps_done_again_after_resuming_count_once(tmp_path, drawn):
    rows = [step_row(5, 4.0), step_row(10, 3.0), {"epoch": 1, "step": 10, "dev_wer": 0.9}, step_row(15, 9.0)]
    rows += [step_row(10, 2.5), {"epoch": 1, "step": 10, "dev_wer": 0.5}]
    assert draw_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert drawn[0][0]["loss"] == [(0.5, 4.0), (1.0, 2.5)]
    assert drawn[1][0]["wer"] == [(1.0, 0.5)]


def test_torn_lines_and_values_that_are_not_finite_are_left_out(tmp_path, drawn):
    rows = [step_row(5, 4.0), step_row(10, float("nan"), ctc2=1.0), [1], {"loss": 3.0}]
    assert draw_curves(write(tmp_path / "metrics.jsonl", rows, '{"epoch": 1, "st'), tmp_path / "curves.png")
    assert drawn[0][0] == {"loss": [(0.5, 4.0)], "ctc2": [(0.5, 2.0), (1.0, 1.0)]}


def test_nothing_to_draw(tmp_path):
    assert not draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not draw_curves(write(tmp_path / "metrics.jsonl", []), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_without_matplotlib_there_is_no_picture_and_no_error(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not draw_curves(write(tmp_path / "metrics.jsonl", [step_row(5, 4.0)]), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
