"""What a study found: a row for each cell, and the finished ones compared as `kikitori compare` does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from kikitori.io.files import write_text
from kikitori.scoring.comparison.compare import Comparison, compare
from kikitori.scoring.comparison.match import Sets, match
from kikitori.scoring.comparison.picture import draw
from kikitori.scoring.comparison.tables import Background, comparison_sections, examples, verdict
from kikitori.scoring.comparison.write import comparison_values, format_markdown
from kikitori.scoring.errors.breakdown import scored_rows
from kikitori.scoring.fillers import count_fillers, leave_out_fillers
from kikitori.scoring.metrics import ErrorCounts
from kikitori.scoring.page import Section, render_comparison
from kikitori.workflows.machine.conditions import versions
from kikitori.workflows.study.illustrations import extras_of
from kikitori.workflows.study.plan import Plan
from kikitori.workflows.study.run import Outcome

TOO_FEW = "Fewer than two cells have results, so that there is nothing to compare. The table says why."


@dataclass(frozen=True)
class Row:
    """A cell with what its seeds found; the rates are of words, or of characters where there are no words.

    Attributes:
        rates: Of each seed that has results, in their order.
        hours: Of training, all seeds together; None where nothing was trained.
        reason: Why there are no results of some seed.
    """

    cell: str
    values: Mapping[str, str]
    rates: tuple[float, ...]
    hours: float | None
    reason: str

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return fmean(self.rates) if self.rates else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of fewer than two."""
        return stdev(self.rates) if len(self.rates) > 1 else None


def study_rows(plan: Plan, outcomes: Sequence[Outcome]) -> list[Row]:
    """The cells in their order, those that were refused, failed or not run among them."""
    return [_row(plan, cell.name, cell.values, outcomes) for cell in plan.cells]


def compared_cells(plan: Plan, outcomes: Sequence[Outcome]) -> list[Comparison]:
    """The cells that have results, by each normalizer, with the first seed of each; none of fewer than two cells."""
    first: dict[str, Sets] = {}
    for outcome in outcomes:
        if outcome.sets is not None:
            first.setdefault(outcome.trial.cell.name, outcome.sets)
    if len(first) < 2:
        return []
    matched = match(first)
    forms: list[str | None] = [*plan.study.normalizers]
    return [compare(matched, form) for form in forms or [None]]


def study_sections(
    plan: Plan, rows: Sequence[Row], compared: Sequence[Comparison], background: Background
) -> list[Section]:
    """The cells as a table, then what a comparison has."""
    axes = list(plan.study.axes)
    rate = compared[0].rate if compared else "error rate"
    table = [["cell", *axes, rate, "spread", "seeds", "hours", "remark"]]
    for row in rows:
        numbers = [_number(row.mean), _number(row.spread), f"{len(row.rates)}"]
        hours = "-" if row.hours is None else f"{row.hours:.2f}"
        table.append([row.cell, *(row.values.get(axis, "") for axis in axes), *numbers, hours, row.reason])
    text = (
        f"{rate}: the mean over the seeds, and their standard deviation; hours: of training. Comparisons below are of "
        "the first seed of each cell: their intervals say what other utterances might do, not what other seeds might."
    )
    return [
        Section("Cells", text, (table,)),
        *(comparison_sections(compared, background) if compared else ()),
    ]


def study_verdict(compared: Sequence[Comparison]) -> str:
    """Two sentences."""
    return verdict(compared[0]) if compared else TOO_FEW


def write_study(folder: Path, name: str, plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """Writes `study.json`, `study.md` and `study.html`; returns the Markdown.

    Raises:
        DataError: A file cannot be written.
    """
    background = _background(plan, outcomes)
    if plan.study.fillers == "remove":
        outcomes = [_without_fillers(outcome) for outcome in outcomes]
    compared, rows = compared_cells(plan, outcomes), study_rows(plan, outcomes)
    sections, sentences = study_sections(plan, rows, compared, background), study_verdict(compared)
    facts = [name, *(f"{package} {version}" for package, version in versions().items())]
    markdown = format_markdown("Study", sentences, sections)
    page = render_comparison(
        "study",
        facts,
        sentences,
        draw(compared[0]) if compared else None,
        sections,
        examples(compared[0]) if compared else [],
        extras_of(plan, folder, compared, {row.cell: row.mean for row in rows if row.mean is not None}),
    )
    values: dict[str, Any] = {
        "study": name,
        "definition": asdict(plan.study),
        "cells": [
            {
                "cell": row.cell,
                "values": dict(row.values),
                "rates": [*row.rates],
                "mean": row.mean,
                "spread": row.spread,
                "hours": row.hours,
                "remark": row.reason,
            }
            for row in rows
        ],
        "comparison": comparison_values(compared, background, sentences) if compared else None,
        "versions": versions(),
    }
    write_text(folder / "study.json", json.dumps(values, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_text(folder / "study.md", markdown + "\n")
    write_text(folder / "study.html", page)
    return markdown


def _row(plan: Plan, name: str, values: Mapping[str, str], outcomes: Sequence[Outcome]) -> Row:
    own = [outcome for outcome in outcomes if outcome.trial.cell.name == name]
    hours = [outcome.hours for outcome in own if outcome.hours is not None]
    reasons = dict.fromkeys(outcome.reason for outcome in own if outcome.reason)
    if name in plan.refused:
        reasons = {f"refused: {plan.refused[name]}": None}
    form = next(iter(plan.study.normalizers), None)
    rates = [_rate(outcome.sets, form) for outcome in own if outcome.sets is not None]
    return Row(name, values, tuple(rates), sum(hours) if hours else None, "; ".join(reasons))


def _rate(sets: Sets, form: str | None) -> float:
    return sum((row.words for row in scored_rows(sets, form)), ErrorCounts()).rate


def _without_fillers(outcome: Outcome) -> Outcome:
    return outcome if outcome.sets is None else replace(outcome, sets=leave_out_fillers(outcome.sets))


def _background(plan: Plan, outcomes: Sequence[Outcome]) -> Background:
    """What is known of the cells beside their rates; fillers are counted in the first seed of each."""
    facts: dict[str, list[str]] = {}
    for outcome in outcomes:
        cell = outcome.trial.cell
        told = facts.setdefault(cell.name, [f"{axis} {value}" for axis, value in cell.values.items()])
        if outcome.sets is not None and len(told) == len(cell.values):
            told += count_fillers(outcome.sets, removed=plan.study.fillers == "remove").facts()
    known = [(outcome.trial.cell.name, outcome.conditions) for outcome in outcomes[::-1]]  # of the first seed
    return Background(facts, {name: conditions for name, conditions in known if conditions is not None})


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
