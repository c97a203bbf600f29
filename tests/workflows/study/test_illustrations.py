"""What the page of a study shows beside its tables."""

import json

import soundfile as sf

from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import Utterance
from kikitori.workflows.study import illustrations
from kikitori.workflows.study.illustrations import at_work, configuration, learning_curves, player, scale_maps
from tests.tiny import tiny_waveform
from tests.workflows.study.test_study import plan, world  # noqa: F401


def test_curves_are_those_of_all_trainings(world, tmp_path):  # noqa: F811
    start = {"recipe": "smoke.yaml", "settings": {"data_root": "."}}
    start["recipe"] = plan(world()).study.recipe
    found = plan(world(axes={"optim.lr": [0.1, 0.2]}, starts={"first": start}))
    for number, digest in enumerate(found.trainings):
        run = tmp_path / "runs" / digest
        run.mkdir(parents=True)
        rows = [{"epoch": 1, "step": 1, "loss": 3.0 + number}, {"epoch": 1, "step": 1, "dev_wer": 0.9}]
        rows += [{"epoch": 2, "step": 2, "loss": 2.0}, {"epoch": 2, "step": 2, "dev_wer": 0.5 + number / 10}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loss, wer = learning_curves(found, tmp_path)
    assert [line.name for line in loss.lines.lines] == ["a start", "lr=0.1", "lr=0.2"]
    assert (wer.title, [line.last for line in wer.lines.lines]) == ("Learning: dev wer", ["0.5", "0.6", "0.7"])
    assert learning_curves(plan(world(settings={"seed": 9})), tmp_path) == []


def test_maps_are_of_axes_of_numbers(world):  # noqa: F811
    axes = {"decoding.beam": [1, 2], "optim.lr": [0.1, 0.2], "llm": {"own": {}}}
    found = plan(world(axes=axes, settings={"decoding.search": "beam"}))
    rates = {cell.name: 0.1 * number for number, cell in enumerate(found.cells, 1)}
    (figure,) = scale_maps(found, rates)
    assert figure.text == "The best is framed; llm own."
    assert [(cell.text, cell.best) for cell in figure.heat.cells] == [
        ("10.00", True),
        ("20.00", False),
        ("30.00", False),
        ("40.00", False),
    ]
    assert scale_maps(found, {}) == []
    assert "design" not in configuration(found)
    assert "decoding.beam:\n  - 1" in configuration(found)


def test_sounds_are_small_and_may_be_missing(tmp_path):
    sf.write(tmp_path / "a.wav", tiny_waveform(2.0), SAMPLE_RATE)
    found = player(Utterance(tmp_path / "a.wav", 2.0))
    assert found.startswith("data:audio/ogg;base64,")
    assert len(found) < 12_000
    assert player(Utterance(tmp_path / "none.wav", 2.0)) is None
    assert player(Utterance(tmp_path / "a.wav", 31.0)) is None


def test_a_cell_that_cannot_be_drawn_has_no_pictures(world, tmp_path, monkeypatch):  # noqa: F811
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(illustrations, "recognizer_of", fail)
    assert at_work(plan(world()), tmp_path, "search=greedy", Utterance(tmp_path / "a.wav", 2.0)) == []


def test_utterances_of_one_tar_have_pictures_of_their_own(world, tmp_path, monkeypatch):  # noqa: F811
    drawn = []
    monkeypatch.setattr(illustrations, "_draw", lambda *arguments: drawn.append(arguments[3]))
    for start in (512, 2048, 512):
        inside = Utterance(tmp_path / "a.tar", 2.0, byte_range=(start, 99))
        at_work(plan(world()), tmp_path, "search=greedy", inside)
    assert drawn[0] == drawn[2] != drawn[1]
