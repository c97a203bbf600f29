"""`kikitori evaluate`: transcribed speech in, error rates and a report out."""

import sys
from typing import Annotated

import typer

from kikitori.cli.common import (
    SOME_FAILED,
    Adapter,
    BatchSize,
    Data,
    Device,
    DeviceOption,
    DtypeOption,
    Folder,
    Language,
    Model,
    NoSpeech,
    OnNoSpeech,
    OnRunaway,
    Overrides,
    Precision,
    Runaway,
    Search,
    Split,
    Window,
    WindowSize,
    folder_for,
    load_recognizer,
    make_folder,
    manifests,
    one_line_errors,
    only_overrides,
    progress_bar,
)


def evaluate(
    overrides: Overrides = None,
    data: Data = None,
    output: Folder = None,
    split: Split = None,
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
    language: Language = None,
    window: Window = WindowSize.padded,
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
        recognizer = load_recognizer(model, decoding, settings, device, dtype, adapter, language, window)
        make_folder(output)
        from kikitori.scoring.report import build_report, format_table, write_report
        from kikitori.search.guards import Guards

        guards = Guards(on_runaway.value, on_no_speech.value)
        with progress_bar("evaluating", sum(map(len, sets.values()))) as progress:
            predictions = evaluation.evaluate(
                recognizer, sets, decoding=recognizer.decoding, batch_size=batch_size, progress=progress, guards=guards
            )
        report = build_report(
            predictions,
            normalizer=normalizer,
            decoding=recognizer.decoding.search,
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
