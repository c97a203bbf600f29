"""Systems to compare by the files that hold what they predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kikitori.errors import ConfigError
from kikitori.scoring.comparison.match import Sets
from kikitori.scoring.comparison.references import read_ctm_predictions, read_trn_predictions
from kikitori.scoring.comparison.robustness import read_corrupted
from kikitori.scoring.conditions import Conditions, read_conditions
from kikitori.scoring.predictions import read_predictions, read_report
from kikitori.scoring.report import PREDICTIONS, REPORT
from kikitori.types import Utterance

NIST = (".trn", ".ctm")


@dataclass(frozen=True)
class System:
    """Predictions of a recogniser, what its report says of it, and those of corrupted recordings."""

    name: str
    sets: Sets
    facts: tuple[str, ...]
    conditions: Conditions | None = None
    corrupted: Mapping[str, Sets] = field(default_factory=dict)


def read_systems(arguments: Sequence[str], references: Mapping[str, Sequence[Utterance]] | None = None) -> list[System]:
    """The systems that a user names: a folder of `kikitori evaluate`, or a file of predictions; NAME=PATH names it.

    Files of NIST's are predictions of the references, which come by the name of their set. Without a name a system has
    that of its folder (or of its file of NIST's), with as many of the folders above as tell it from the others.

    Raises:
        ConfigError: There are fewer than two, two have the same name, or files of NIST's come without references.
        DataError: A file cannot be read.
    """
    if len(arguments) < 2:
        raise ConfigError("one system has nothing to be compared with", remedy="name two or more")
    given = [_name_and_path(argument) for argument in arguments]
    folders = [path.with_suffix("") if path.suffix in NIST else _file(path).parent for _, path in given]
    names = [name or own for (name, _), own in zip(given, _short_names(folders), strict=True)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError("two systems have this name", where=twice[0], remedy="write NAME=PATH")
    return [_system(name, _file(path), references or {}) for name, (_, path) in zip(names, given, strict=True)]


def _name_and_path(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    return (name, Path(path)) if equals and not Path(argument).exists() else ("", Path(argument))


def _file(path: Path) -> Path:
    return path / PREDICTIONS if path.is_dir() else path


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]).replace("//", "/") for each in parts]
        if len({*names}) == len(names):
            break
    return names


def _system(name: str, file: Path, references: Mapping[str, Sequence[Utterance]]) -> System:
    if file.suffix not in NIST:
        report = read_report(file.with_name(REPORT))
        facts = [f"{key} {report[key]}" for key in ("model", "decoder", "decoding") if isinstance(report.get(key), str)]
        conditions = read_conditions(report.get("conditions"))
        return System(name, read_predictions(file), (*facts, str(file)), conditions, read_corrupted(file.parent))
    if not references:
        raise ConfigError("it has no references", where=file, remedy="name a file of them with --reference")
    read = read_trn_predictions if file.suffix == ".trn" else read_ctm_predictions
    return System(name, {of: read(file, utterances) for of, utterances in references.items()}, (str(file),))
