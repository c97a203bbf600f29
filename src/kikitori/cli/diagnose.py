"""`kikitori diagnose`: which errors there are and where they come from."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar


def diagnose(
    predictions: Annotated[list[Path], typer.Argument(help="predictions.jsonl of evaluations.")],
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="Text whose words count as known, plain, .gz, .xz; may be repeated."),
    ] = None,
    data: common.Data = None,
    split: common.Split = None,
    max_lines: common.MaxLines = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="Recogniser whose CTC head scores the references; reads the audio.")
    ] = None,
    output: common.Folder = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
) -> None:
    """Show where errors come from: speakers, lengths, unknown words, search, spelling; and what each could win."""
    with common.one_line_errors():
        if split and not data:
            raise ConfigError("a split of what", where="--split", remedy="name a manifest with --data")
        from kikitori.data.manifest import read_manifest
        from kikitori.scoring.errors.breakdown import scored_rows
        from kikitori.scoring.errors.diagnosis import diagnose as diagnose_rows
        from kikitori.scoring.errors.diagnosis import form_of
        from kikitori.scoring.errors.tables import format_sections, sections
        from kikitori.scoring.errors.words import count_words
        from kikitori.scoring.predictions import read_evaluations
        from kikitori.text.corpus import read_lines
        from kikitori.workflows.diagnose import reference_scores, write_diagnosis

        rows = scored_rows(read_evaluations(predictions))
        form = form_of(rows) if text or data else ""
        if output is not None:
            common.make_folder(output)
        texts = {_short(path): count_words(read_lines(path, max_lines=max_lines), form) for path in text or ()}
        for path in data or ():
            spoken = (row.text for row in read_manifest(path, split=split).utterances if row.text)
            texts[f"{_short(path)}{f', {split}' if split else ''}"] = count_words(spoken, form)
        scores = None
        if model is not None:
            from kikitori.loading import load

            with common.warnings_as_lines():
                recognizer = load(model, device=device.value)
            with progress_bar("encoding", len(rows)) as progress:
                scores = reference_scores(recognizer, rows, batch_size=batch_size, progress=progress)
        found = diagnose_rows(rows, texts, scores)
        print(format_sections(sections(found)), flush=True)
        if output is not None:
            facts = [
                *(f"{path}" for path in predictions),
                *([] if model is None else [f"references scored by {model}"]),
            ]
            for file in write_diagnosis(output, found, facts):
                print(f"kikitori: {file}", file=sys.stderr)


def _short(path: Path) -> str:
    """A file with its folder: manifests are often called the same."""
    return "/".join(path.parts[-2:])
