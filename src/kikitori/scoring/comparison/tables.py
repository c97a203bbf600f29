"""A comparison as tables and sentences; rates are fractions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kikitori.errors import counted
from kikitori.scoring.comparison.compare import (
    FEWEST,
    Comparison,
    Score,
    compared,
    confused_words,
    is_certain,
    macro_mean,
)
from kikitori.scoring.comparison.match import Sets, telling_names
from kikitori.scoring.comparison.robustness import robustness_section
from kikitori.scoring.conditions import HEADING, Conditions, unknown_cells
from kikitori.scoring.errors import breakdown
from kikitori.scoring.errors.breakdown import Group, Row
from kikitori.scoring.page import Example, Section
from kikitori.scoring.paired import Comparison as Change
from kikitori.text.normalize import WITHOUT_WORDS, versioned

EXAMPLES = 15
"""Utterances that are shown, those on which the systems differ most."""
Table = list[list[str]]


@dataclass(frozen=True)
class Background:
    """What is known of systems beside their rows.

    Attributes:
        facts: Of each system, such as its model.
        conditions: Of the systems whose reports tell under which they were measured.
        corrupted: The same systems on corrupted recordings, by corruption.
    """

    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    conditions: Mapping[str, Conditions] = field(default_factory=dict)
    corrupted: Mapping[str, Comparison] = field(default_factory=dict)


def verdict(found: Comparison) -> str:
    """Two sentences: which system makes the fewest errors, and whether that may be chance."""
    best, other = _best_and_other(found)
    others = [name for name in found.systems if name not in (best.system, other.system)]
    equals = [name for name in others if best.utterances >= FEWEST and _as_good(found, name, best)]
    among = f" (not to be told from {', '.join(equals)})" if equals else ""
    what = f"{best.system}{among} makes the fewest {found.unit} errors: {found.rate} {best.words.rate:.4f}"
    known = best.change if other is found.totals[0] else None
    change = known or compared(found.rows[other.system], found.rows[best.system])
    if change is None:
        return f"{what}. Nothing was said in {counted(best.utterances, 'utterance')}."
    if best.words.errors == other.words.errors:
        both = f"{best.system} and {other.system} make equally many {found.unit} errors"
        what = f"{both}: {found.rate} {best.words.rate:.4f}"
    else:
        fewer = 100.0 * (1.0 - best.words.errors / other.words.errors)
        what += f", beside {other.words.rate:.4f} of {other.system} ({fewer:.1f} % fewer)"
    if best.utterances < FEWEST:
        few = f"{counted(best.utterances, 'utterance')} {'is' if best.utterances == 1 else 'are'}"
        return f"{what}. {few} too few to tell whether that is chance."
    certain = "more than chance explains" if is_certain(change, best.utterances) else "no more than chance may explain"
    numbers = f"change {change.change:+.4f}, 95 % {_interval(change.interval, '+.4f')}, p {_p(change.p_value)}"
    return f"{what}. On {best.utterances} utterances that is {certain}: {numbers}."


def comparison_sections(several: Sequence[Comparison], background: Background) -> list[Section]:
    """What a report shows of systems, scored with one or more normalizers; the details are by the first of these.

    Args:
        several: A comparison for each normalizer.
        background: What else is known of the systems.
    """
    found = several[0]
    parts = [
        _systems(found, background),
        *map(_rates, several),
        robustness_section(found, background.corrupted),
        Section(
            "How long and how fast",
            "Rates by groups of utterances: their duration, and the words in a second of theirs.",
            (_by_group("duration", found, breakdown.by_seconds), _by_group("speaking rate", found, breakdown.by_rate))
            if any(row.seconds for row in found.rows[found.systems[0]])
            else (),
        ),
        _confused(found),
    ]
    return [part for part in parts if part.tables]


def examples(found: Comparison) -> list[tuple[str, list[Example]]]:
    """The utterances on which the systems differ most, each with what every system made of it."""
    return [
        (rows[0].prediction.utterance.utt_id, [_example(name, row) for name, row in zip(found.rows, rows, strict=True)])
        for rows in shown_rows(found)
    ]


def shown_rows(found: Comparison) -> list[tuple[Row, ...]]:
    """The rows of the utterances that `examples` shows, in their order, with one of each system."""
    together = [*zip(*found.rows.values(), strict=True)]

    def difference(rows: Sequence[Row]) -> int:
        errors = [row.words.errors for row in rows]
        return max(errors) - min(errors)

    shown = sorted((rows for rows in together if difference(rows) and any(r.pairs for r in rows)), key=difference)
    return shown[::-1][:EXAMPLES]


def missing_rows(systems: Mapping[str, Sets], error: str) -> dict[str, list[str]]:
    """The names of the rows of each system that have an error."""
    found = {}
    for name, sets in systems.items():
        rows = [row for members in sets.values() for row in members]
        names = telling_names([row.utterance for row in rows])
        found[name] = [known for known, row in zip(names, rows, strict=True) if row.error == error]
    return found


def _best_and_other(found: Comparison) -> tuple[Score, Score]:
    """The system with the fewest errors, and the first; or the second best, where the first is the best."""
    totals = found.totals
    ordered = sorted(totals, key=lambda score: score.words.errors)
    best = ordered[0]
    return best, totals[0] if best is not totals[0] else ordered[1]


def _as_good(found: Comparison, system: str, best: Score) -> bool:
    change = compared(found.rows[best.system], found.rows[system])
    return change is not None and not is_certain(change, best.utterances)


def _systems(found: Comparison, background: Background) -> Section:
    rows: Table = [["system", "failed", "missing", "what"]]
    speeds: Table = [["system", *HEADING]]
    for speed in found.speeds:
        about = "; ".join(background.facts.get(speed.system, ()))
        rows.append([speed.system, str(speed.failed), str(speed.missing), about])
        known = background.conditions.get(speed.system)
        speeds.append([speed.system, *(known.cells(speed.rtfx) if known else unknown_cells(speed.rtfx))])
    text = (
        "Failed and missing utterances count as empty texts. RTFx: seconds of audio recognised in a second, behind a "
        "warm-up batch; speeds of other devices, batches or threads are not to be compared."
    )
    return Section("Systems", text, (rows, speeds))


def _rates(found: Comparison) -> Section:
    rate = found.rate
    heading = ["set", "system", *([rate, "95 %"] if rate == "WER" else ()), "CER", "95 %", "sub", "del", "ins"]
    errors: Table = [[*heading, "best of the lists"]]
    changes: Table = [["set", "system", "change", "95 %", "p", "better", "worse"]]
    for score in found.scores:
        name = score.set_name or "total"
        cells = [name, score.system]
        if rate == "WER":
            cells += [f"{score.words.rate:.4f}", _interval(score.word_interval)]
        cells += [f"{score.characters.rate:.4f}", _interval(score.character_interval)]
        cells += [str(n) for n in (score.words.substitutions, score.words.deletions, score.words.insertions)]
        errors.append([*cells, "-" if score.oracle is None else _rate(score.oracle, score.words.reference_length)])
        if score.change is not None:
            changes.append([name, score.system, *_change_cells(score.change)])
    tables = [errors, changes]
    if len(found.scores) > len(found.totals):
        means = [["mean of the sets", rate], *([system, f"{macro_mean(found, system):.4f}"] for system in found.rows)]
        tables.append(means)
    text = (
        f"Normalizer {versioned(found.form)}. Intervals: bootstrap over utterances. Changes of {rate} beside "
        f"{found.systems[0]}: interval of the paired bootstrap, two-sided p of the matched-pairs test (each for "
        "itself, not corrected for the number of systems), utterances with fewer and with more errors."
    )
    return Section(f"Error rates: {found.form}", text, tuple(table for table in tables if len(table) > 1))


def _by_group(heading: str, found: Comparison, groups_of: Callable[[Sequence[Row]], list[Group]]) -> Table:
    groups = [groups_of(rows) for rows in found.rows.values()]
    table = [[heading, "utterances", *found.systems]]
    return table + [
        [same[0].name, str(same[0].utterances), *(f"{each.words.rate:.4f}" for each in same)]
        for same in zip(*groups, strict=True)  # the systems have the same utterances, and so the same groups
    ]


def _confused(found: Comparison) -> Section:
    rows = [["said", "recognised", *found.systems]]
    rows += [[said, written, *map(str, counts)] for said, written, counts in confused_words(found)]
    text = f"The most frequent substitutions of all systems together, and how often each has them, by {found.unit}."
    return Section("Most confused", text, (rows,) if len(rows) > 1 else ())


def _example(system: str, row: Row) -> Example:
    notes = [note for note in (row.prediction.error, *row.prediction.flags) if note]
    return Example(system, notes, row.pairs, "" if row.form in WITHOUT_WORDS else " ")


def _change_cells(change: Change) -> list[str]:
    numbers = [f"{change.change:+.4f}", _interval(change.interval, "+.4f"), _p(change.p_value)]
    return [*numbers, str(change.better), str(change.worse)]


def _interval(interval: tuple[float, float], form: str = ".4f") -> str:
    return " to ".join(f"{end:{form}}" for end in interval)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _rate(errors: int, length: int) -> str:
    return f"{errors / length:.4f}" if length else "-"
