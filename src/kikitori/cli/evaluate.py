"""`kikitori evaluate`: transcribed speech in, error rates and a report out."""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.io.progress import progress_bar


def evaluate(
    overrides: common.Overrides = None,
    data: common.Data = None,
    output: common.Folder = None,
    split: common.Split = None,
    reference: Annotated[
        str, typer.Option("--reference", help="Key of the manifest that holds what was said, such as reading.")
    ] = "text",
    normalizer: Annotated[
        str | None, typer.Option("--normalizer", help="Form that is scored; by default that of the rows' language.")
    ] = None,
    model: common.Model = None,
    decoding: common.Search = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    language: common.Language = None,
    window: common.Window = common.WindowSize.padded,
    hotwords: common.Hotwords = None,
    on_runaway: common.Runaway = common.OnRunaway.keep,
    on_no_speech: common.NoSpeech = common.OnNoSpeech.empty,
) -> None:
    """Measure a recogniser on transcribed speech: WER, CER, RTFx, and a report in a folder."""
    with common.one_line_errors():
        settings = common.only_overrides(overrides)
        paths = common.manifests(data)
        output = common.folder_for("the report", output)
        from kikitori.data.manifest import read_manifest
        from kikitori.text.normalize import normalize

        if normalizer is not None:
            normalize(normalizer, "")  # refuses a wrong name before the work begins
        from kikitori.workflows import evaluate as evaluation

        rows = {str(path): read_manifest(path, split=split).utterances for path in paths}
        sets = {name: evaluation.with_reference(utterances, reference) for name, utterances in rows.items()}
        recognizer = common.load_recognizer(model, decoding, settings, device, dtype, adapter, language, window)
        if hotwords is not None:
            from kikitori.scorers.hotwords.phrases import read_hotwords

            recognizer = replace(recognizer, hotwords=read_hotwords(hotwords))
        common.make_folder(output)
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
        raise typer.Exit(common.SOME_FAILED)
