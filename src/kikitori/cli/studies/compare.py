"""`kikitori compare`: systems on the same utterances, and whether they differ by more than chance."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError


class MissingRows(StrEnum):
    """What becomes of utterances that a system lacks."""

    refuse = "refuse"
    delete = "delete"


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(help="Folders of kikitori evaluate, their predictions.jsonl, or .trn, .ctm; NAME=PATH names."),
    ],
    normalizer: Annotated[
        list[str] | None,
        typer.Option("--normalizer", help="Form that is scored; may be repeated. By default that of the language."),
    ] = None,
    missing: Annotated[
        MissingRows, typer.Option("--missing", help="Utterances that a system lacks: an error, or words deleted.")
    ] = MissingRows.refuse,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="What was said: .stm, .trn or a manifest; for .trn and .ctm.")
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of .stm and .trn, such as en.")] = None,
    nist: Annotated[
        bool, typer.Option("--nist", help="Write normalized texts to -o for sclite too: .trn, and reference.stm.")
    ] = False,
    fillers: common.FillersOption = common.Fillers.keep,
    output: common.Folder = None,
) -> None:
    """Compare systems on the same utterances with the first of them: rates, intervals, significance, confusions."""
    with common.one_line_errors():
        from kikitori.scoring.comparison.references import read_references
        from kikitori.scoring.comparison.systems import read_systems
        from kikitori.scoring.comparison.tables import comparison_sections, verdict
        from kikitori.scoring.comparison.write import FILES, format_markdown, nist_files, write_comparison, write_nist
        from kikitori.text.forms.languages import check_language
        from kikitori.text.normalize import normalize
        from kikitori.workflows.compare import compare_systems
        from kikitori.workflows.machine.conditions import versions

        for name in normalizer or ():
            normalize(name, "")  # refuses a wrong name before the work begins
        check_language(language, "--language")
        if nist and output is None:
            raise ConfigError("no folder given", where="--nist", remedy="name it with -o")
        known = None if reference is None else {str(reference): read_references(reference, language)}
        found = read_systems(systems, known)
        if nist and output is not None:
            nist_files(output, [system.name for system in found])
        compared = compare_systems(
            found,
            normalizer or (),
            references=known,
            missing=missing.value,
            without_fillers=fillers is common.Fillers.remove,
        )
        if output is not None:
            common.make_folder(output)
        for note in compared.notes:
            print(f"kikitori: {note}", file=sys.stderr)
        scored, background = compared.by_form, compared.background
        if output is None:
            sections = comparison_sections(scored, background)
            print(format_markdown("Comparison", verdict(scored[0]), sections), flush=True)
            return
        print(write_comparison(output, scored, background, versions()), end="", flush=True)
        for file in [*(output / name for name in FILES), *(write_nist(output, scored[0]) if nist else ())]:
            print(f"kikitori: {file}", file=sys.stderr)
