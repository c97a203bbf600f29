"""Studies from the file to the report: what is trained, decoded, kept, refused and not run."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kikitori.errors import ConfigError, TrainingError
from kikitori.scoring.report import Prediction
from kikitori.train.loop.checkpoint import check_space
from kikitori.types import Utterance
from kikitori.workflows.study import run
from kikitori.workflows.study.budget import affordable, needed
from kikitori.workflows.study.plan import plan_study
from kikitori.workflows.study.report import write_study
from kikitori.workflows.study.run import Outcome, run_study
from kikitori.workflows.study.spec import load_study
from tests.commands import call, one_line
from tests.data.layouts.sounds import tar
from tests.scoring.test_report import Checker

ROOT = Path(__file__).parents[3]
CLIPS = ROOT / "tests" / "data" / "clips"
PLAIN = {
    "recipe": str(ROOT / "recipes" / "smoke.yaml"),
    "test": [{"path": "clips/manifest.jsonl", "split": "dev"}],
    "axes": {"decoding.search": ["ctc_greedy", "greedy"]},
    "settings": {"run.epochs": 1, "data.train": [{"path": "clips/manifest.jsonl", "split": "train"}]},
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with the clips, in which studies are written."""
    shutil.copytree(CLIPS, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        settings = {**PLAIN["settings"], "data_root": str(tmp_path), **changes.pop("settings", {})}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(PLAIN | changes | {"settings": settings}, sort_keys=False))
        return tmp_path / "study.yaml"

    return write


def plan(file):
    return plan_study(load_study(file), file)


def digests(found):
    return {trial.cell.name: trial.digest for trial in found.trials}


def test_two_cells_from_one_training(world, tmp_path, monkeypatch):
    file = world(normalizers=["whisper_en", "basic"])
    result = call("study", file, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len([*(tmp_path / "out" / "runs").glob("*/model")]) == 1
    values = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [cell["cell"] for cell in values["cells"]] == ["search=ctc_greedy", "search=greedy"]
    assert all(cell["rates"] == [cell["mean"]] and cell["remark"] == "" for cell in values["cells"])
    assert result.stdout == (tmp_path / "out" / "study.md").read_text()
    assert "## Error rates: basic" in result.stdout
    checker = Checker()
    page = (tmp_path / "out" / "study.html").read_text()
    checker.feed(page)
    assert "<h2>Configuration</h2>\n<pre>recipe: " in page
    assert '<img src="data:image/png;base64,' in page  # the attention of the first of them
    assert not checker.open

    # Nothing is done again; another search is decoded, and nothing trained.
    monkeypatch.setattr(run, "train_recipe", None)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").glob("*/report.json")}
    again = call("study", world(axes={"decoding.search": ["ctc_greedy", "greedy", "ctc_beam"]}), "-o", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert len([*(tmp_path / "out" / "cells").iterdir()]) == 3
    preview = call("study", file, "-o", tmp_path / "out", "--dry-run").stdout
    assert preview.count(" done\n") == 3


def test_digests_change_with_what_a_cell_depends_on(world, tmp_path):
    first = plan(world())
    assert digests(plan(world(normalizers=["basic"], budget_hours=1.0))) == digests(first)
    assert digests(plan(world(settings={"run.patience": 0}))) == digests(first)
    assert [*plan(world(axes={"decoding.search": ["greedy", "joint"]})).trainings] == [*first.trainings]
    assert plan(world(settings={"optim.lr": 0.1})).trainings.keys() != first.trainings.keys()
    manifest = tmp_path / "clips" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("0", "1", 1))
    assert plan(world()).trainings.keys() != first.trainings.keys()


def test_digests_change_with_shards(world, tmp_path):
    shards = {"data.train": [{"path": "tars"}]}
    files = {"1.txt": b"a", "1.flac": b"sound"}
    tar(tmp_path / "tars" / "0.tar", files)
    first = plan(world(settings=shards)).trainings.keys()
    assert plan(world(settings=shards)).trainings.keys() == first
    tar(tmp_path / "tars" / "0.tar", files | {"2.txt": b"b", "2.flac": b"sound"})
    assert plan(world(settings=shards)).trainings.keys() != first


def test_recordings_may_be_corrupted_for_the_test_alone(world):
    found = plan(world(axes={"corrupt": ["clean", "telephone+noise:5.0"]}))
    assert len(found.trainings) == 1
    clean, noisy = found.trials
    assert (clean.corrupt, noisy.corrupt) == ("clean", "telephone+noise:5")
    assert clean.digest == plan(world(axes={"decoding.search": ["greedy"]})).trials[0].digest != noisy.digest


def test_seeds_and_starts(world):
    def of(name):
        return {"llm.config": None, "llm.init": f"start:{name}"}

    start = {"recipe": PLAIN["recipe"], "settings": {"run.epochs": 1, "data_root": "."}}
    found = plan(
        world(
            seeds=[1, 2],
            starts={"first": start, "second": start | {"settings": {**start["settings"], **of("first")}}},
            axes={"llm": {"random": {}, "trained": of("second")}},
        )
    )
    assert [(trial.cell.name, trial.seed) for trial in found.trials] == [
        ("llm=random", 1),
        ("llm=random", 2),
        ("llm=trained", 1),
        ("llm=trained", 2),
    ]
    training = found.trials[-1].training
    assert len(found.trainings) == 2 + 4
    assert [len(each.starts) for each in found.trainings.values()] == [0, 1, 0, 0, 1, 1]
    assert training.recipe(Path("runs")).llm.init == f"runs/{training.starts[0]}/model"
    order = [found.trainings[training.starts[0]].starts[0], training.starts[0], training.digest]
    assert [each.digest for each in needed(found, found.trials[-1])] == order


def test_a_cell_may_have_seeds_of_its_own(world):
    found = plan(world(axes={"learns": {"all": {"seeds": [1, 2]}, "less": {"optim.lr": 0.1}}}))
    assert [(trial.cell.name, trial.seed) for trial in found.trials] == [
        ("learns=all", 1),
        ("learns=all", 2),
        ("learns=less", 1),
    ]
    shared = {"seeds": [1, 2], "decoding.search": "ctc_greedy"}
    searches = plan(world(axes={"learns": {"all": {"seeds": [1, 2]}, "other search": shared}}))
    assert len(searches.trainings) == 2
    for wrong in ([], [1, 1], [-1], "1", 1):
        with pytest.raises(ConfigError, match="list of different whole numbers"):
            plan(world(axes={"learns": {"all": {"seeds": wrong}}}))


def test_a_search_waits_for_the_model_it_names(world):
    lm = {"recipe": str(ROOT / "recipes" / "mini_en_lm.yaml"), "settings": {"data_root": "."}}
    options = {"decoding.search": "rescoring", "decoding.scorers.lm": {"path": "start:lm", "scale": 0.3}}
    found = plan(world(starts={"lm": lm}, axes={"search": {"plain": {}, "with LM": options}}))
    plain, rescored = found.trials
    assert plain.training == rescored.training
    assert [each.digest for each in needed(found, rescored)] == [*found.trainings]
    assert str(rescored.decoding(Path("runs")).lms["lm"].path) == f"runs/{rescored.starts[0]}/model"


def test_the_budget_is_spent_cell_by_cell(world):
    found = plan(world(axes={"optim.lr": [0.1, 0.2, 0.3]}, budget_hours=2.5))
    one, two, three = found.trainings
    assert affordable(found, {one: 1.0, two: 2.0, three: 1.5}, {}) == {one, three}
    assert affordable(found, {two: 2.0, three: 1.5}, {one: 1.0}) == {one, three}
    assert affordable(found, {}, dict.fromkeys(found.trainings, 9.0)) == {one, two, three}
    assert affordable(plan(world(axes={"optim.lr": [0.1, 0.2, 0.3]})), {one: 9.0}, {}) == {one, two, three}


def test_rows_that_failed_were_refused_or_not_run(world, tmp_path, monkeypatch):
    def train(recipe, folder, **_):
        if recipe.optim.lr == 0.2:
            raise TrainingError("it diverged")
        folder.mkdir(parents=True)
        return True

    monkeypatch.setattr(run, "training_hours", lambda recipe: 5.0 if recipe.optim.lr == 0.3 else 0.1)
    monkeypatch.setattr(run, "train_recipe", train)
    frozen = {"ctc.policy": "frozen", "encoder.policy": "frozen"}
    axes = {
        "optim.lr": [0.1, 0.2, 0.3],
        "parts": {"learn": {}, "heads": {"encoder.policy": "frozen"}, "frozen": frozen},
    }
    cells = [{"optim.lr": lr} for lr in axes["optim.lr"]]
    result = call("study", world(axes=axes, design="list", cells=cells, budget_hours=1.0), "-o", tmp_path / "out")
    assert result.exit_code == 1
    remarks = [cell["remark"] for cell in json.loads((tmp_path / "out" / "study.json").read_text())["cells"]]
    assert "failed: " in remarks[0]  # there is no model to decode
    assert remarks[1:] == [
        "failed: it diverged",
        "not run: training takes about 5.00 h, which does not fit the budget",
    ]
    assert "Fewer than two cells have results" in result.stdout
    preview = call("study", "study.yaml", "-o", tmp_path / "out", "--dry-run").stdout
    assert "does not fit the budget" in preview
    assert "trainings that fit: " in preview


def test_fillers_are_left_out_where_the_study_says_so(world, tmp_path, monkeypatch):
    said = Utterance(Path("a.wav"), 1.0, text="um we went home", language="en")
    predictions = {"dev": [Prediction(said, "we went uh home", 0.1)]}
    plain = plan(world(normalizers=["none"]))
    for fillers, rate in (("keep", 0.5), ("remove", 0.0)):
        found = plan(world(normalizers=["none"], fillers=fillers))
        assert digests(found) == digests(plain)  # it is a matter of scoring
        markdown = write_study(tmp_path, "s", found, [Outcome(trial, predictions, None) for trial in found.trials])
        assert [cell["mean"] for cell in json.loads((tmp_path / "study.json").read_text())["cells"]] == [rate, rate]
        assert markdown.count(f"fillers {'left out' if rate == 0.0 else 'as the normalizer'}") == 2
        assert markdown.count("1 said, 1 recognised") == 2

    monkeypatch.setattr(run, "read_tests", lambda *_: {"ja": [replace(said, language="de")]})
    with pytest.raises(ConfigError, match="fillers: remove: fillers are known of en and ja alone"):
        run_study(found, tmp_path, print)


def test_a_study_that_is_stopped_goes_on(world, tmp_path, monkeypatch):
    calls = []

    def train(_, folder, *, resume):
        calls.append(resume)
        folder.mkdir(parents=True, exist_ok=True)
        return len(calls) > 1

    monkeypatch.setattr(run, "train_recipe", train)
    assert call("study", world(), "-o", tmp_path / "out").exit_code == 130
    assert not (tmp_path / "out" / "study.json").exists()
    call("study", world(), "-o", tmp_path / "out")
    assert calls == [False, True]


def test_a_full_disk_ends_a_study(world, monkeypatch, tmp_path):
    calls = []

    def train(_, folder, *, resume):  # noqa: ARG001
        calls.append(folder)
        check_space(tmp_path, 2**60)

    monkeypatch.setattr(run, "train_recipe", train)
    result = call("study", world(axes={"optim.lr": [0.1, 0.2]}), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "free the disk" in result.stderr
    assert len(calls) == 1
    assert not (tmp_path / "out" / "study.json").exists()


def test_values_that_do_not_go_together_are_rows(world):
    axes = {"bridge.stride": [1, 2], "kind": {"stack": {}, "compressed": {"bridge.kind": "ctc_compress"}}}
    found = plan(world(axes=axes, settings={"ctc.weights": {2: 0.3}}))
    assert [*found.refused] == ["stride=2, kind=compressed"]
    assert "stride does not go with" in found.refused["stride=2, kind=compressed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"bridge.strid": [1, 2]}}, "axes: bridge.strid: 1: .*did you mean 'stride'"),
        ({"axes": {"decoding.beem": [1, 2]}}, "study.yaml: axes: decoding.beem: 1: decoding: beem: unexpected key"),
        ({"axes": {"decoding.search": ["greedy", "greedie"]}}, "no such search"),
        ({"axes": {"optim.lr": [0.1, "x"]}}, "axes: optim.lr: x: "),
        ({"axes": {"a": {"one": {}, "two": {"optim.lr": 0.004}}}}, "a=two: it is the same as a=one"),
        ({"axes": {"llm.init": ["start:lm"]}}, "no such start: 'lm'"),
        ({"recipe": "nothing.yaml"}, "no such file"),
        ({"axes": {"corrupt": ["clean", "nois:3"]}}, "axes: corrupt: nois:3: .*did you mean 'noise'"),
        ({"recipe": "."}, "is a folder"),
    ],
)
def test_what_is_refused_at_once(world, changes, message):
    assert re.search(message, one_line(call("study", world(**changes), "--dry-run")))


def test_dry_runs_name_what_is_missing(world, tmp_path):
    result = call("study", world(test=[{"path": "none.jsonl"}]), "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"not here: {tmp_path / 'none.jsonl'}" in result.stdout
    assert "2 cells, 2 with their seeds, 1 training" in result.stdout
    assert "none.jsonl" in one_line(call("study", tmp_path / "study.yaml", "-o", tmp_path / "out"))
    file = world(test=[{"path": "clips/manifest.jsonl", "split": "nope"}])
    assert "nope" in call("study", file, "--dry-run").stdout
    assert "nope" in one_line(call("study", file, "-o", tmp_path / "out"))
    assert not (tmp_path / "out" / "runs").exists()
    models = {"model": ["tiny-en", "./nowhere", "owner/name"]}
    said = call("study", world(axes=models), "--dry-run").stdout
    assert said.splitlines()[-1] == "not here: ./nowhere: no such model folder"
    assert "name the folder for the study" in one_line(call("study", world()))
    assert "not an override" in one_line(call("study", world(), "x"))


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_study_of_the_repository_can_be_planned(file, tmp_path):
    result = call("study", file, f"data_root={tmp_path}", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "refused" not in result.stdout


@pytest.mark.slow
def test_the_smoke_study_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = call("study", "studies/smoke.yaml", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    cells = json.loads((tmp_path / "study.json").read_text())["cells"]
    assert [cell["cell"] for cell in cells] == ["base", "stride=4", "search=ctc_greedy"]
    assert max(cell["mean"] for cell in cells) < 0.1
    assert result.stdout.startswith("# Study\n\n")
