"""A study is run: trained, decoded and scored, each once for what it depends on, so that a stopped study goes on.

The folder holds `runs/DIGEST` (a run folder of each training, and `DIGEST.json` once it is done) and `cells/DIGEST`
(the report of each cell with a seed). Nothing is removed: a study that is changed back finds what it had.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kikitori.data.corruption import CLEAN, parse_corruption
from kikitori.errors import KikitoriError
from kikitori.io.files import DiskFullError, write_text
from kikitori.io.model_folder import model_folder
from kikitori.loading import load
from kikitori.recognizer import Recognizer
from kikitori.scoring.comparison.match import Sets
from kikitori.scoring.conditions import Conditions, read_conditions
from kikitori.scoring.fillers import check_fillers
from kikitori.scoring.predictions import read_predictions
from kikitori.scoring.report import PREDICTIONS, REPORT
from kikitori.train.build.corpora import read_ref
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.run import train_recipe
from kikitori.types import Utterance
from kikitori.workflows.evaluate import Searching, Setting, evaluate_into
from kikitori.workflows.study.budget import affordable, needed, training_hours
from kikitori.workflows.study.plan import Plan, Training, Trial
from kikitori.workflows.study.spec import Study

RUNS, CELLS = "runs", "cells"
Log = Callable[[str], None]
FAILURES = (KikitoriError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What ends a cell and not the study: a cell may ask for too much memory, or for what its parts cannot do."""


class Stopped(Exception):  # noqa: N818  (it is no error)
    """The study was asked to stop; everything is saved."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell with a seed: predictions, or why there are none; and the hours that its training took.

    Attributes:
        conditions: Under which it was decoded, where its report tells.
    """

    trial: Trial
    sets: Sets | None
    hours: float | None
    reason: str | None = None
    conditions: Conditions | None = None


def measured_hours(plan: Plan, folder: Path) -> dict[str, float]:
    """Hours of the trainings that are done, by digest."""
    return {digest: hours for digest in plan.trainings if (hours := _hours(folder, digest)) is not None}


def expected_hours(plan: Plan, folder: Path, log: Log) -> dict[str, float]:
    """Hours of the trainings that are not done, by one step of each; those that cannot be tried count as nothing.

    A training that starts from one that is not done is not tried either: it counts as that one.
    """
    done = measured_hours(plan, folder)
    hours: dict[str, float] = {}
    for digest, training in plan.trainings.items():
        if digest in done:
            continue
        before = [start for start in training.starts if start not in done]
        if before:
            hours[digest] = max(hours[start] for start in before)
            continue
        try:
            hours[digest] = training_hours(training.recipe(folder / RUNS))
        except FAILURES as error:
            hours[digest] = 0.0
            log(f"how long it takes cannot be told: {error}")
    return hours


def read_tests(study: Study, data_root: str) -> dict[str, Sequence[Utterance]]:
    """The test sets of a study by their names.

    Raises:
        DataError: A manifest cannot be read, or a set of it is empty.
    """
    return {f"{ref.path} {ref.split or ''}".strip(): [*read_ref(Path(data_root), ref).rows] for ref in study.test}


def run_study(plan: Plan, folder: Path, log: Log) -> list[Outcome]:
    """Trains, decodes and scores what is not there yet; a cell that fails says why, and the others go on.

    Raises:
        ConfigError: Fillers are to be left out of languages whose fillers are not known.
        DataError: A test set cannot be read: hours of training would come to nothing.
        DiskFullError: There is no room left.
        Stopped: SIGTERM came while something was trained; the same call goes on there.
    """
    for root in dict.fromkeys(trial.data_root for trial in plan.trials):
        tests = read_tests(plan.study, root)
        if plan.study.fillers == "remove":
            check_fillers((row for rows in tests.values() for row in rows), "fillers: remove")
    expected = expected_hours(plan, folder, log) if plan.study.budget_hours is not None else {}
    fits = affordable(plan, expected, measured_hours(plan, folder))
    reasons = {
        digest: f"not run: training takes about {expected.get(digest, 0.0):.2f} h, which does not fit the budget"
        for digest in plan.trainings
        if digest not in fits
    }
    outcomes = []
    for number, trial in enumerate(plan.trials, 1):
        log(f"cell {number} of {len(plan.trials)}: {trial.cell.name}, seed {trial.seed}")
        outcomes.append(_outcome(plan, trial, folder, reasons))
        if outcomes[-1].reason:
            log(f"{trial.cell.name}: {outcomes[-1].reason}")
    return outcomes


def _outcome(plan: Plan, trial: Trial, folder: Path, reasons: dict[str, str]) -> Outcome:
    """Of a cell; reasons for which trainings are not to be had grow with each that fails."""
    report = folder / CELLS / trial.digest
    try:
        for training in needed(plan, trial):
            if training.digest in reasons:
                return Outcome(trial, None, None, reasons[training.digest])
            if _hours(folder, training.digest) is None:
                _train(training, folder, reasons)
        if not (report / REPORT).is_file():
            _decode(plan, trial, folder / RUNS, report)
        hours = None if trial.training is None else _hours(folder, trial.training.digest)
        conditions = read_conditions(json.loads((report / REPORT).read_text(encoding="utf-8")).get("conditions"))
        return Outcome(trial, read_predictions(report / PREDICTIONS), hours, conditions=conditions)
    except DiskFullError:
        raise
    except FAILURES as error:
        return Outcome(trial, None, None, f"failed: {_one_line(error)}")


def _train(training: Training, folder: Path, reasons: dict[str, str]) -> None:
    run = folder / RUNS / training.digest
    recipe = training.recipe(folder / RUNS)
    started = time.perf_counter()
    try:
        finished = train_recipe(recipe, run, resume=run.is_dir())
    except FAILURES as error:
        reasons[training.digest] = f"failed: {_one_line(error)}"
        raise
    if not finished:
        raise Stopped
    hours = (time.perf_counter() - started) / 3600.0
    write_text(_done(folder, training.digest), json.dumps({"hours": hours}) + "\n")


def recognizer_of(trial: Trial, runs: Path) -> Recognizer:
    """The recogniser of a cell whose trainings are done, with its search.

    Raises:
        KikitoriError: It cannot be loaded.
    """
    decoding = trial.decoding(runs)
    if trial.training is None:
        return load(trial.model, decoding=decoding)
    recipe = trial.training.recipe(runs)
    model, adapter = _trained(recipe, runs / trial.training.digest)
    return load(model, device=recipe.run.device, decoding=decoding, adapter=adapter)


def _decode(plan: Plan, trial: Trial, runs: Path, report: Path) -> None:
    recognizer = recognizer_of(trial, runs)
    corruption = None if trial.corrupt == CLEAN else parse_corruption(trial.corrupt)
    setting = Setting(batch_size=plan.study.batch_size, corruption=corruption)
    tests = read_tests(plan.study, trial.data_root)
    evaluate_into(report, Searching(recognizer, recognizer.decoding), tests, setting)


def _trained(recipe: Recipe, run: Path) -> tuple[str, Path | None]:
    """The model folder of a finished run, and its adapter."""
    match recipe:
        case SpeechAdaptationRecipe() | TextAdaptationRecipe():
            return model_folder(recipe.adapt.model), run / "adapter"
        case _:
            return str(run / "model"), None


def _done(folder: Path, digest: str) -> Path:
    return folder / RUNS / f"{digest}.json"


def _hours(folder: Path, digest: str) -> float | None:
    """Hours that a training has taken; None while it is not done."""
    try:
        return float(json.loads(_done(folder, digest).read_text())["hours"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, KikitoriError) else f"{type(error).__name__}: {text}"[:300]
