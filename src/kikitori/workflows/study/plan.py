"""From a study to what has to be trained and decoded, each known by a digest of all that it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kikitori.data.corruption import CLEAN, parse_corruption
from kikitori.errors import ConfigError
from kikitori.io.model_folder import SPEECH_LLM
from kikitori.search.options import CTCGreedySearch, Decoding, GreedySearch, load_decoding, with_overrides
from kikitori.train.recipe.recipe import Recipe, load_recipe
from kikitori.workflows.study.digests import changed, digest_of
from kikitori.workflows.study.spec import Cell, Settings, Study, cells_of, checked_seeds, single_values

RECIPE, MODEL, CORRUPT, SEEDS = "recipe", "model", "corrupt", "seeds"
DECODING, START, SEED = "decoding.", "start:", "seed"


@dataclass(frozen=True)
class Training:
    """A recipe file with settings; those that name starts name them by digest.

    Attributes:
        starts: Digests of the trainings that have to come before it.
    """

    file: Path
    settings: Mapping[str, Any]
    task: str
    data_root: str
    digest: str
    starts: tuple[str, ...]

    def recipe(self, runs: Path) -> Recipe:
        """The recipe, which begins from the models that earlier trainings left in a folder of runs."""
        return load_recipe(self.file, _overrides(_with_runs(self.settings, runs)))


@dataclass(frozen=True)
class Trial:
    """A cell with a seed.

    Attributes:
        training: What is trained; None for a `model` that is decoded as it is.
        corrupt: What is done to the test sets' recordings, as of `parse_corruption`.
        search: Options of the search, which may name starts by digest.
        starts: Digests of the trainings that the search names.
        digest: Of training, search and test sets.
    """

    cell: Cell
    seed: int
    training: Training | None
    model: str | None
    corrupt: str
    search: Mapping[str, Any]
    starts: tuple[str, ...]
    data_root: str
    digest: str

    def decoding(self, runs: Path) -> Decoding:
        """The search, with the models that trainings left in a folder of runs."""
        return _decoding(_with_runs(self.search, runs))


@dataclass(frozen=True)
class Plan:
    """All of a study.

    Attributes:
        trainings: Starts and trainings of cells by digest, each behind those that it starts from.
        trials: Cell by cell, seed by seed.
        refused: Cells whose values do not go together, by name, with the reason.
    """

    study: Study
    cells: tuple[Cell, ...]
    trainings: Mapping[str, Training]
    trials: tuple[Trial, ...]
    refused: Mapping[str, str]


def plan_study(study: Study, file: Path) -> Plan:
    """Checks a study and finds what it takes.

    Raises:
        ConfigError: A setting is none of the recipe or the search, a value does not fit it, or two cells are the same.
    """
    folder = file.parent
    trainings: dict[str, Training] = {}
    starts: dict[str, str] = {}
    for name, start in study.starts.items():
        training = _training(folder / start.recipe, start.settings, starts, f"{file}: starts: {name}")
        starts[name] = training.digest
        trainings[training.digest] = training
    known: dict[str, list[Trial]] = {}
    for value in single_values(study):
        known[repr(value.settings)] = _trials(study, value, folder, starts, f"{file}: {value.name}")
    cells = cells_of(study, str(file))
    trials: list[Trial] = []
    refused: dict[str, str] = {}
    for cell in cells:
        try:
            found = known.get(repr(cell.settings)) or _trials(study, cell, folder, starts, cell.name)
            trials += [replace(trial, cell=cell) for trial in found]
        except ConfigError as error:
            refused[cell.name] = str(error)
    seen: dict[str, Trial] = {}
    for trial in trials:
        if (same := seen.setdefault(trial.digest, trial)) is not trial:
            what = f"it is the same as {same.cell.name}"
            raise ConfigError(what, where=f"{file}: {trial.cell.name}", remedy="take a value or an axis away")
        if trial.training is not None:
            trainings[trial.training.digest] = trial.training
    return Plan(study, tuple(cells), trainings, tuple(trials), refused)


def _trials(study: Study, cell: Cell, folder: Path, starts: Mapping[str, str], where: str) -> list[Trial]:
    """A cell with every seed; what is not trained has no seed."""
    settings = dict(cell.settings)
    model = settings.pop(MODEL, None)
    try:
        corrupt = parse_corruption(str(settings.pop(CORRUPT, CLEAN))).name
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None
    file = folder / str(settings.pop(RECIPE, study.recipe))
    seeds = checked_seeds(settings.pop(SEEDS, study.seeds), where)
    of_recipe = {key: value for key, value in settings.items() if not key.startswith(DECODING)}
    of_search = {key: value for key, value in settings.items() if key.startswith(DECODING)}
    search = _with_starts(of_search, starts, where)
    found = []
    for seed in seeds[:1] if model is not None else seeds:
        training = _training(file, of_recipe | {SEED: seed}, starts, where)
        if f"{DECODING}search" not in search:
            default = CTCGreedySearch.search if training.task == "acoustic_model" else GreedySearch.search
            search = {f"{DECODING}search": default} | search
        try:
            decoding = _decoding(search)
        except ConfigError as error:
            raise ConfigError(str(error), where=where) from None
        depends = {
            "trained": training.digest if model is None else model,
            "search": [decoding.search, changed(decoding)],
            "test": changed(study.test),
        } | ({} if corrupt == CLEAN else {"corrupt": corrupt})  # what is older has the digest that it had
        if model is not None and decoding.decoder == SPEECH_LLM:
            depends["decoder"] = f"{model}/{SPEECH_LLM}"
        trained = training if model is None else None
        digest = digest_of(depends, Path(training.data_root))
        named = _named(search, starts)
        found.append(Trial(cell, seed, trained, model, corrupt, search, named, training.data_root, digest))
    return found


def _training(file: Path, settings: Settings, starts: Mapping[str, str], where: str) -> Training:
    named = _with_starts(settings, starts, where)
    try:
        recipe = load_recipe(file, _overrides(named))
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None
    digest = digest_of(changed(recipe), Path(recipe.data_root))
    return Training(file, named, recipe.task, recipe.data_root, digest, _named(named, starts))


def _named(settings: Mapping[str, Any], starts: Mapping[str, str]) -> tuple[str, ...]:
    """Digests of the starts that settings name."""
    return tuple(digest for digest in starts.values() if f"{START}{digest}" in repr(settings))


def _decoding(search: Mapping[str, Any]) -> Decoding:
    return with_overrides(load_decoding(GreedySearch.search), _overrides(search))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as overrides `a.b=value`, values in YAML on one line."""
    return [f"{key}={_one_line(_with_numbers(value))}" for key, value in settings.items()]


def _with_numbers(value: Any) -> Any:
    """A value whose keys that are numbers, such as layers, are numbers again; a study is read by way of JSON."""
    match value:
        case dict():
            return {int(key) if key.isdecimal() else key: _with_numbers(member) for key, member in value.items()}
        case list():
            return [*map(_with_numbers, value)]
    return value


def _one_line(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _with_starts(settings: Mapping[str, Any], starts: Mapping[str, str], where: str) -> Settings:
    """Settings that name starts by their digests instead of their names."""

    def replaced(value: Any) -> Any:
        match value:
            case str() if value.startswith(START):
                name = value.removeprefix(START)
                if name not in starts:
                    known = ", ".join(starts) or "none"
                    raise ConfigError(f"no such start: '{name}'", where=where, remedy=f"known here are {known}")
                return START + starts[name]
            case dict():
                return {key: replaced(member) for key, member in value.items()}
            case list():
                return [*map(replaced, value)]
        return value

    return {key: replaced(value) for key, value in settings.items()}


def _with_runs(settings: Mapping[str, Any], runs: Path) -> Settings:
    """Settings in which the model folders of starts stand in place of their digests."""

    def replaced(value: Any) -> Any:
        match value:
            case str() if value.startswith(START):
                return str(runs / value.removeprefix(START) / MODEL)
            case dict():
                return {key: replaced(member) for key, member in value.items()}
            case list():
                return [*map(replaced, value)]
        return value

    return {key: replaced(value) for key, value in settings.items()}
