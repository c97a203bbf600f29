"""`kikitori transcribe | evaluate`: recordings in, transcripts or a report out."""

import re
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import (
    SOME_FAILED,
    Adapter,
    BatchSize,
    Device,
    DeviceOption,
    DtypeOption,
    Model,
    Precision,
    Search,
    complain,
    folder_for,
    load_recognizer,
    make_folder,
    manifests,
    one_line_errors,
    only_overrides,
    progress_bar,
    split_overrides,
)
from kikitori.errors import ConfigError, KikitoriError

LINE_BREAKS = r"[\t\n\v\f\r\x85\u2028\u2029]+"


class OnRunaway(StrEnum):
    """What to give where the speech LLM ran away."""

    ctc = "ctc"
    keep = "keep"


class OnNoSpeech(StrEnum):
    """What to give for a recording without speech."""

    empty = "empty"
    keep = "keep"


Runaway = Annotated[
    OnRunaway,
    typer.Option("--on-runaway", help="Where the speech LLM loops or hallucinates: the CTC head's text, or its own."),
]
NoSpeech = Annotated[
    OnNoSpeech,
    typer.Option("--on-no-speech", help="For silence and noise: no text, or whatever the search finds in them."),
]


class Format(StrEnum):
    """Transcript file formats."""

    txt = "txt"
    json = "json"
    jsonl = "jsonl"
    all = "all"


def transcribe(
    audio: Annotated[list[str], typer.Argument(help="Audio files, and overrides such as decoding.max_labels=50.")],
    model: Model = None,
    decoding: Search = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for transcript files.")] = None,
    formats: Annotated[list[Format] | None, typer.Option("-f", "--format", help="Formats, with -o.")] = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
    on_runaway: Runaway = OnRunaway.ctc,
    on_no_speech: NoSpeech = OnNoSpeech.empty,
) -> None:
    """Transcribe audio files: one line per file (path, tab, text), or files in a folder with -o."""
    with one_line_errors():
        files, overrides = split_overrides(audio)
        if not files:
            raise ConfigError("no audio file given", remedy="name at least one file")
        if formats and output is None:
            raise ConfigError("-f writes files", where="-f", remedy="name their folder with -o")
        recognizer, options = load_recognizer(model, decoding, overrides, device, dtype, adapter)
        from kikitori.io.writers import FORMATS, unique_stems, write_transcript
        from kikitori.search.guards import Guards

        if output is not None:
            make_folder(output)
        names = FORMATS if formats and Format.all in formats else [f.value for f in formats or [Format.txt]]
        language = recognizer.loaded.trained_on.language
        failed = 0
        paths = [Path(file) for file in files]
        recognizer = replace(recognizer, guards=Guards(on_runaway.value, on_no_speech.value))
        results = recognizer.try_transcribe_many(paths, batch_size=batch_size, decoding=options)
        with progress_bar("transcribing", 0 if output is None else len(paths)) as progress:
            for path, stem, result in zip(paths, unique_stems(paths), results, strict=True):
                try:
                    if isinstance(result, KikitoriError):
                        raise result
                    for flag in result.flags:
                        why = f" ({result.reasons[flag]})" if flag in result.reasons else ""
                        print(
                            f"kikitori: {path}: {flag.replace('_', ' ')}{why}; check this transcript", file=sys.stderr
                        )
                    if output is None:
                        print(f"{path}\t{' '.join(re.split(LINE_BREAKS, result.text))}", flush=True)
                    else:
                        write_transcript(result, path, output, names, stem=stem, language=language)
                except KikitoriError as error:
                    failed += 1
                    complain(error)
                progress(1)
    if failed:
        raise typer.Exit(SOME_FAILED)


def evaluate(
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as decoding.max_labels=50.")] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="JSONL manifest; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the report.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Rows of this split only.")] = None,
    reference: Annotated[
        str, typer.Option("--reference", help="Key of the manifest that holds what was said, such as reading.")
    ] = "text",
    normalizer: Annotated[
        str | None, typer.Option("--normalizer", help="Form that is scored; by default that of the rows' language.")
    ] = None,
    model: Model = None,
    decoding: Search = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
    on_runaway: Runaway = OnRunaway.keep,
    on_no_speech: NoSpeech = OnNoSpeech.empty,
) -> None:
    """Measure a recogniser on transcribed speech: WER, CER, RTFx, and a report in a folder."""
    with one_line_errors():
        settings = only_overrides(overrides)
        paths = manifests(data)
        output = folder_for("the report", output)
        from kikitori.data.manifest import read_manifest
        from kikitori.text.normalize import normalize

        if normalizer is not None:
            normalize(normalizer, "")  # refuses a wrong name before the work begins
        from kikitori.workflows import evaluate as evaluation

        rows = {str(path): read_manifest(path, split=split).utterances for path in paths}
        sets = {name: evaluation.with_reference(utterances, reference) for name, utterances in rows.items()}
        recognizer, options = load_recognizer(model, decoding, settings, device, dtype, adapter)
        make_folder(output)
        from kikitori.scoring.report import build_report, format_table, write_report
        from kikitori.search.guards import Guards

        guards = Guards(on_runaway.value, on_no_speech.value)
        with progress_bar("evaluating", sum(map(len, sets.values()))) as progress:
            predictions = evaluation.evaluate(
                recognizer, sets, decoding=options, batch_size=batch_size, progress=progress, guards=guards
            )
        report = build_report(
            predictions,
            normalizer=normalizer,
            decoding=options.search,
            model=recognizer.name,
            versions=evaluation.versions(),
        )
        write_report(output, report, predictions)
        print(format_table(report), flush=True)
        failures = [p for rows in predictions.values() for p in rows if p.error is not None]
        for prediction in failures:
            print(f"kikitori: {prediction.error}", file=sys.stderr)
    if failures:
        raise typer.Exit(SOME_FAILED)
