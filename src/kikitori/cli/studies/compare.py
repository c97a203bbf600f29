"""`kikitori compare`: systems on the same utterances, and whether they differ by more than chance."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from kikitori.cli import common


class MissingRows(StrEnum):
    """What becomes of utterances that a system lacks."""

    refuse = "refuse"
    delete = "delete"


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(help="Folders of kikitori evaluate, or their predictions.jsonl; NAME=PATH gives a name."),
    ],
    normalizer: Annotated[
        list[str] | None,
        typer.Option("--normalizer", help="Form that is scored; may be repeated. By default that of the language."),
    ] = None,
    missing: Annotated[
        MissingRows, typer.Option("--missing", help="Utterances that a system lacks: an error, or words deleted.")
    ] = MissingRows.refuse,
    output: common.Folder = None,
) -> None:
    """Compare systems on the same utterances with the first of them: rates, intervals, significance, confusions."""
    with common.one_line_errors():
        from kikitori.scoring.comparison.compare import compare as score
        from kikitori.scoring.comparison.match import MISSING, match
        from kikitori.scoring.comparison.systems import read_systems
        from kikitori.scoring.comparison.tables import comparison_sections, missing_rows, verdict
        from kikitori.scoring.comparison.write import format_markdown, write_comparison
        from kikitori.text.normalize import normalize
        from kikitori.workflows.evaluate import versions

        for name in normalizer or ():
            normalize(name, "")  # refuses a wrong name before the work begins
        found = read_systems(systems)
        matched = match({system.name: system.sets for system in found}, missing=missing.value)
        if output is not None:
            common.make_folder(output)
        for name, ids in missing_rows(matched, MISSING).items():
            for utt_id in ids:
                print(f"kikitori: {name} has no prediction for {utt_id}", file=sys.stderr)
        facts = {system.name: system.facts for system in found}
        forms: list[str | None] = [*dict.fromkeys(normalizer or ())]
        scored = [score(matched, name) for name in forms or [None]]
        print(format_markdown("Comparison", verdict(scored[0]), comparison_sections(scored, facts)), flush=True)
        if output is not None:
            for file in write_comparison(output, scored, facts, versions()):
                print(f"kikitori: {file}", file=sys.stderr)
