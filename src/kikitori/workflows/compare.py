"""`kikitori compare`: systems that were read, to comparisons by each normalizer with all that is known beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kikitori.scoring.comparison.compare import Comparison, compare
from kikitori.scoring.comparison.match import MISSING, Missing, match
from kikitori.scoring.comparison.robustness import compare_corrupted, not_shared
from kikitori.scoring.comparison.systems import System
from kikitori.scoring.comparison.tables import Background, missing_rows
from kikitori.scoring.fillers import check_fillers, count_fillers, leave_out_fillers
from kikitori.scoring.report import Prediction
from kikitori.types import Utterance


@dataclass(frozen=True)
class Compared:
    """Comparisons of the same systems, one for each normalizer.

    Attributes:
        notes: What a user should know of rows and corruptions that are not there.
    """

    by_form: tuple[Comparison, ...]
    background: Background
    notes: tuple[str, ...]


def compare_systems(
    systems: Sequence[System],
    normalizers: Sequence[str],
    *,
    references: Mapping[str, Sequence[Utterance]] | None = None,
    missing: Missing = "refuse",
    without_fillers: bool = False,
) -> Compared:
    """Compares systems with the first of them.

    Args:
        systems: Two or more.
        normalizers: Forms that are scored; none takes that of the rows' language.
        references: What was said, by set, where it is not what the systems' rows say.
        missing: What becomes of utterances that a system lacks.
        without_fillers: Whether fillers are left out before anything is scored.

    Raises:
        ConfigError: Fillers are to be left out of languages whose fillers are not known.
        DataError: Rows do not belong together.
    """
    said = {name: [Prediction(each, "", 0.0) for each in rows] for name, rows in (references or {}).items()}
    matched = match({system.name: system.sets for system in systems}, references=said or None, missing=missing)
    corrupted = {system.name: system.corrupted for system in systems}
    notes = [
        f"{name} has no prediction for {row}" for name, rows in missing_rows(matched, MISSING).items() for row in rows
    ]
    notes += [f"left out, since not all systems have it: {name}" for name in not_shared(corrupted)]
    counts = {name: count_fillers(sets, removed=without_fillers) for name, sets in matched.items()}
    facts = {system.name: (*system.facts, *counts[system.name].facts()) for system in systems}
    if without_fillers:
        check_fillers(row.utterance for rows in matched[systems[0].name].values() for row in rows)
        matched = {name: leave_out_fillers(sets) for name, sets in matched.items()}
        corrupted = {
            name: {corruption: leave_out_fillers(sets) for corruption, sets in each.items()}
            for name, each in corrupted.items()
        }
    forms: list[str | None] = [*dict.fromkeys(normalizers)] or [None]
    background = Background(
        facts,
        {system.name: system.conditions for system in systems if system.conditions is not None},
        compare_corrupted(corrupted, forms[0], missing),
    )
    return Compared(tuple(compare(matched, form) for form in forms), background, tuple(notes))
