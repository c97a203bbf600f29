"""What training would make of manifests: rows it leaves out and why, what sets look like, what they share.

The checks are those of training itself (`kikitori.train.build`), so that both say the same.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from kikitori.data.description import Description, describe_utterances, unknown_characters
from kikitori.data.manifest import parse_source, read_manifest
from kikitori.data.rows import listed
from kikitori.data.speech import check_files, filter_rows
from kikitori.data.splits import Shared, shared
from kikitori.io.progress import Bar, no_bar
from kikitori.train.build.checks import RowChecks, row_checks
from kikitori.train.build.corpora import SHARES, filtered_rows, labels_of, read_ref
from kikitori.train.recipe.data import ManifestRef, SpeechData
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.tasks.label_rates import too_long_for_ctc
from kikitori.types import Utterance

BROKEN = "broken line"
OVERLAP = "six words in a row, or all, are in what is kept for measuring"
UNREADABLE = "cannot be read"
TOO_LONG_FOR_CTC = "more labels than frames: adds nothing to a CTC loss"
_KEPT_APART = re.compile(r"(^|[^a-z])(dev|valid|validation|val|test|eval)([^a-z]|$)")


@dataclass(frozen=True)
class LeftOut:
    """A row that training leaves out; of one that cannot be read, `detail` says why."""

    set: str
    utt_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class CheckedSet:
    """A set: its rows, whether they are trained on or kept for measuring, and what is left out of them.

    Attributes:
        unknown: Characters that the recipe's label units lack, or, without a recipe, those of a set kept for measuring
            that no training text has; with how often they occur.
        cut: Rows that take but the beginning of a file of which no other has the rest, and how much.
    """

    name: str
    trained: bool
    rows: Sequence[Utterance]
    description: Description
    left_out: Sequence[LeftOut]
    unknown: Mapping[str, int] = field(default_factory=dict)
    cut: Sequence[str] = ()


@dataclass(frozen=True)
class DataCheck:
    """All sets, and what those that are trained on share with each of the others, by the names of both.

    Attributes:
        unknown_to: Whom the unknown characters of sets are unknown to.
        stops: Training with this recipe stops at the first broken line or missing file, instead of leaving it out.
    """

    sets: Sequence[CheckedSet]
    shared: Mapping[tuple[str, str], Shared]
    unknown_to: str
    stops: bool = False

    @property
    def left_out(self) -> list[LeftOut]:
        """Of all sets."""
        return [each for checked in self.sets for each in checked.left_out]


def check_manifests(sources: Sequence[str], *, bar: Bar = no_bar) -> DataCheck:
    """Checks manifests, each given as `MANIFEST` or `MANIFEST:SPLIT`, by the limits that a recipe has by default.

    Each split is a set. Those called dev, test or the like are kept for measuring, all others trained on.

    Raises:
        DataError: A manifest cannot be read.
    """
    limits, sets = SpeechData([]), list[CheckedSet]()
    for source in sources:
        for name, rows, problems in _by_split(source, sources):
            trained = not _KEPT_APART.search(
                name.rpartition(":")[2].lower() if ":" in name else Path(name).stem.lower()
            )
            bounds = (limits.min_seconds, limits.max_seconds) if trained else (0.0, inf)
            sets.append(_checked(name, rows, trained, problems, bounds, bar))
    known = Counter[str]()
    for each in sets:
        known.update(each.description.characters if each.trained else ())
    if known:
        sets = [
            each if each.trained else replace(each, unknown=_without(each.description.characters, known))
            for each in sets
        ]
    return DataCheck(_told_once(sets), _shared(sets), "texts that are trained on")


def check_recipe(recipe: Recipe, sources: Sequence[str] = (), *, bar: Bar = no_bar) -> DataCheck:
    """Checks what a recipe trains on and measures on; `sources` are manifests that are kept for measuring too.

    Raises:
        KikitoriError: The recipe trains on no speech, a manifest cannot be read, or a model is missing.
    """
    checks = row_checks(recipe)
    data, sets = checks.recipe.data, [_trained(ref, checks, bar) for ref in checks.recipe.data.train]
    root = Path(checks.recipe.data_root)
    for ref in data.dev:
        found = read_ref(root, ref, on_error="skip")
        sets.append(_checked(_name(ref), [*found.rows], False, found.problems, (0.0, inf), bar, checks))
    for source in sources:
        for name, rows, problems in _by_split(source, sources):
            sets.append(_checked(name, rows, False, problems, (0.0, inf), bar, checks))
    return DataCheck(_told_once(sets), _shared(sets), "label units", checks.stops)


def _trained(ref: ManifestRef, checks: RowChecks, bar: Bar) -> CheckedSet:
    once, name = replace(ref, repeat=1), _name(ref)
    rows = [*read_ref(Path(checks.recipe.data_root), once, on_error="skip").rows]
    lines: list[str] = []
    kept, report = filtered_rows(checks.recipe, [once], labels_of(checks.units), lines.append)
    left_out = [_problem(name, _bare(line)) for line in lines]
    left_out += [LeftOut(name, utt_id, reason) for reason, names in report.dropped.items() for utt_id in names]
    unreadable, cut = _files(name, kept, bar)
    left_out += unreadable
    if checks.ctc_units is not None and checks.encoder is not None and kept:
        misfits = kept.take(too_long_for_ctc(kept, checks.ctc_units, checks.encoder))
        left_out += [LeftOut(name, utt_id, TOO_LONG_FOR_CTC) for utt_id in sorted({row.utt_id for row in misfits})]
    return CheckedSet(name, True, rows, describe_utterances(rows), left_out, _unknown(rows, checks), cut)


def _checked(
    name: str,
    rows: Sequence[Utterance],
    trained: bool,
    problems: Sequence[str],
    bounds: tuple[float, float],
    bar: Bar,
    checks: RowChecks | None = None,
) -> CheckedSet:
    needs_text = checks is None or checks.units is not None
    table = listed(rows, (lambda texts: [True] * len(texts)) if needs_text else None)
    kept, report = filter_rows(table, min_seconds=bounds[0], max_seconds=bounds[1])
    left_out = [_problem(name, problem) for problem in problems]
    left_out += [LeftOut(name, utt_id, reason) for reason, names in report.dropped.items() for utt_id in names]
    unreadable, cut = _files(name, kept, bar)
    left_out += unreadable
    unknown = {} if checks is None else _unknown(rows, checks)
    return CheckedSet(name, trained, rows, describe_utterances(rows), left_out, unknown, cut)


def _problem(name: str, problem: str) -> LeftOut:
    return LeftOut(name, "", OVERLAP if SHARES in problem else BROKEN, problem)


def _files(name: str, rows: Sequence[Utterance], bar: Bar) -> tuple[list[LeftOut], list[str]]:
    """Rows whose files cannot be read as far as they say, and those that end long before their files do."""
    with bar(f"checking files of {name}", len(rows)) as advance:
        report = check_files(rows, advance)
    return [LeftOut(name, utt_id, UNREADABLE, problem) for utt_id, problem in report.problems.items()], report.cut


def _by_split(source: str, all_sources: Sequence[str]) -> Iterable[tuple[str, Sequence[Utterance], Sequence[str]]]:
    """The sets of a manifest with their names, short ones if they differ; its broken lines are told with the first."""
    path, split = parse_source(source)
    manifest = read_manifest(path, split=split, on_error="skip")
    paths = {parse_source(each)[0] for each in all_sources}
    short = Path(*path.parts[-2:])
    shown = path if sum(Path(*other.parts[-2:]) == short for other in paths) > 1 else short
    sets: dict[str, list[Utterance]] = {}
    for row in manifest.utterances:
        sets.setdefault(f"{shown}:{row.split}" if row.split else str(shown), []).append(row)
    for number, (name, rows) in enumerate(sets.items()):
        yield name, rows, () if number else manifest.problems


def _told_once(sets: Sequence[CheckedSet]) -> list[CheckedSet]:
    """The sets, each broken line only with the first of those whose manifest has it."""
    told, result = set[str](), list[CheckedSet]()
    for each in sets:
        left_out = [row for row in each.left_out if row.reason != BROKEN or row.detail not in told]
        told |= {row.detail for row in left_out}
        result.append(replace(each, left_out=left_out))
    return result


def _shared(sets: Sequence[CheckedSet]) -> dict[tuple[str, str], Shared]:
    return {
        (train.name, kept.name): shared(train.rows, kept.rows)
        for kept in sets
        if not kept.trained
        for train in sets
        if train.trained
    }


def _unknown(rows: Sequence[Utterance], checks: RowChecks) -> Mapping[str, int]:
    return {} if checks.units is None else unknown_characters((row.text or "" for row in rows), checks.units)


def _without(characters: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    return {each: count for each, count in characters.items() if each not in known and not each.isspace()}


def _name(ref: ManifestRef) -> str:
    return f"{ref.path}:{ref.split}" if ref.split else ref.path


def _bare(line: str) -> str:
    """A problem as the log of training has it, without what all of them share."""
    return line.removeprefix("warning: ").removesuffix("; line left out")
