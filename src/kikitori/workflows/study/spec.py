"""What a study varies, as one strict YAML file: a recipe, axes with values, test sets, seeds.

A setting is a key of the recipe (`bridge.stride`), an option of the search (`decoding.search`), `recipe` (another
recipe file), `model` (a recogniser that is decoded as it is), `seeds` (in place of the study's), or `corrupt` (what is
done to the test sets' recordings, see `kikitori.data.corruption`). A value `start:NAME` is the model of a training that
`starts` names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import did_you_mean, merge_yaml, validate
from kikitori.text.normalize import normalize
from kikitori.train.recipe.data import ManifestRef
from kikitori.train.recipe.types import STRICT, AtLeastOne, Count, Positive

Settings = dict[str, Any]


def _different(seeds: list[int]) -> list[int]:
    if len({*seeds}) < len(seeds):
        raise ValueError("a seed is named twice")
    return seeds


Seeds = Annotated[list[Count], Field(min_length=1), AfterValidator(_different)]
BASE = "base"
"""Name of the cell with the first value of every axis, where one axis is varied at a time."""


@dataclass(frozen=True, config=STRICT)
class Start:
    """A training that cells start from or search with.

    Attributes:
        recipe: Recipe file, relative to the study's folder.
        settings: Settings of that recipe.
    """

    recipe: str
    settings: Settings = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Study:
    """A study.

    Attributes:
        recipe: Recipe file, relative to the study's folder.
        test: Manifests that are decoded and scored, relative to the recipe's `data_root`.
        axes: Values by the name of their axis: a list of values of the setting that the axis is called after, or names
            of values with the settings of each.
        settings: Of all cells, beneath those of the axes.
        starts: Trainings that values name as `start:NAME`; a start may name one before it.
        design: Which values go together: `grid`, all of them; `one_at_a_time`, the first of all axes and each other
            value on top of that (with one axis of names these are the cells' names); `list`, what `cells` says.
        cells: With `list`: of each cell, the names of its values by axis; the first value of axes that are not named.
        seeds: Each cell is trained with each of them, unless its values have others.
        normalizers: Forms that are scored; none takes that of the language.
        fillers: Whether sounds of hesitation stay in what is scored, see `kikitori.text.forms.fillers`.
        budget_hours: Of training; cells whose training does not fit become rows that were not run.
        batch_size: Utterances decoded together.
    """

    recipe: str
    test: Annotated[list[ManifestRef], Field(min_length=1)]
    axes: Annotated[dict[str, list[Any] | dict[str, Settings]], Field(min_length=1)]
    settings: Settings = Field(default_factory=dict)
    starts: dict[str, Start] = Field(default_factory=dict)
    design: Literal["grid", "one_at_a_time", "list"] = "grid"
    cells: list[dict[str, Any]] = Field(default_factory=list)
    seeds: Seeds = Field(default_factory=lambda: [1])
    normalizers: list[str] = Field(default_factory=list)
    fillers: Literal["keep", "remove"] = "keep"
    budget_hours: Positive | None = None
    batch_size: AtLeastOne = 8

    def __post_init__(self) -> None:
        """Checks that cells are named where they are asked for, and nothing is named twice."""
        if bool(self.cells) != (self.design == "list"):
            raise ValueError("design 'list' and cells go together")
        tests = [(ref.path, ref.split) for ref in self.test]
        if len({*tests}) < len(tests):
            raise ValueError("a split of a test manifest is named twice")
        for axis, values in self.axes.items():
            names = [*map(str, values)]
            if not names or len({*names}) < len(names):
                raise ValueError(f"axis '{axis}' has no values, or one of them twice")


@plain_dataclass(frozen=True)
class Cell:
    """A row of the study: the name of the value on each axis, and what these and the study set."""

    name: str
    values: Mapping[str, str]
    settings: Mapping[str, Any]


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study; overrides such as `data_root=../shared` are settings of all its cells and starts.

    Raises:
        ConfigError: A key is unknown or has the wrong type, or there is no such normalizer.
    """
    study = validate(Study, merge_yaml(path), str(path))
    for name in study.normalizers:
        normalize(name, "")
    for override in overrides:
        key, _, _ = override.partition("=")
        value: Any = merge_yaml(None, [f"value={override[len(key) + 1 :]}"])["value"]
        study.settings[key] = value
        for start in study.starts.values():
            if not key.startswith("decoding.") and key != "corrupt":
                start.settings[key] = value
    return study


def cells_of(study: Study, where: str) -> list[Cell]:
    """The cells of a study, the one that the others are compared with first.

    Raises:
        ConfigError: A cell names no axis or no value of one.
    """
    names = {axis: [*map(str, values)] for axis, values in study.axes.items()}
    first = {axis: values[0] for axis, values in names.items()}
    match study.design:
        case "grid":
            several = {axis for axis, values in names.items() if len(values) > 1}
            grid = [dict(zip(names, values, strict=True)) for values in product(*names.values())]
            return [
                _cell(study, each, _named({axis: each[axis] for axis in names if axis in several})) for each in grid
            ]
        case "one_at_a_time":
            if len(names) == 1 and isinstance(next(iter(study.axes.values())), dict):  # the names say it all
                return [_cell(study, {axis: value}, value) for axis, values in names.items() for value in values]
            others = [(axis, value) for axis, values in names.items() for value in values[1:]]
            cells = [_cell(study, first | {axis: value}, _named({axis: value})) for axis, value in others]
            return [_cell(study, first, BASE), *cells]
        case "list":
            cells = []
            for number, given in enumerate(study.cells, 1):
                chosen = {axis: str(value) for axis, value in given.items()}
                for axis, value in chosen.items():
                    _check_known(axis, names, f"{where}: cells: {number}")
                    _check_known(value, names[axis], f"{where}: cells: {number}: {axis}")
                cells.append(_cell(study, first | chosen, _named(chosen)))
            return cells


def checked_seeds(seeds: Any, where: str) -> list[int]:
    """The seeds of a cell.

    Raises:
        ConfigError: They are no list of different counts.
    """
    try:
        return TypeAdapter(Seeds).validate_python(seeds, strict=True)
    except ValidationError:
        raise ConfigError(f"seeds are a list of different whole numbers, not {seeds}", where=where) from None


def single_values(study: Study) -> list[Cell]:
    """The first values of all axes with one other value each: what has to be valid by itself."""
    first = {axis: str(next(iter(values))) for axis, values in study.axes.items()}
    return [
        _cell(study, first | {axis: str(value)}, f"axes: {axis}: {value}")
        for axis, values in study.axes.items()
        for value in values
    ]


def _cell(study: Study, values: Mapping[str, str], name: str | None = None) -> Cell:
    settings = dict(study.settings)
    for axis, chosen in values.items():
        options = study.axes[axis]
        if isinstance(options, dict):
            settings |= options[chosen]
        else:
            settings[axis] = next(value for value in options if str(value) == chosen)
    return Cell(name or _named(values), values, settings)


def _named(values: Mapping[str, str]) -> str:
    return ", ".join(f"{_short(axis)}={value}" for axis, value in values.items()) or BASE


def _short(axis: str) -> str:
    return axis.rpartition(".")[2] if "decoding." not in axis else axis.removeprefix("decoding.")


def _check_known(name: str, known: Sequence[str] | Mapping[str, Any], where: str) -> None:
    if name not in known:
        guess = did_you_mean(name, known)
        remedy = f"did you mean '{guess}'?" if guess else f"known are {', '.join(known)}"
        raise ConfigError(f"there is no '{name}'", where=where, remedy=remedy)
