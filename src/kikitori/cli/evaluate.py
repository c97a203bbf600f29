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
    corrupt: Annotated[
        list[str] | None,
        typer.Option(
            "--corrupt",
            help="Evaluate the recordings with noise:10 (dB), speed:1.1, reverb:0.5 (s), telephone, clipping:12 (dB), "
            "opus:8 (kbit/s) or gsm too, or several such as reverb:0.5+noise:10; may be repeated.",
        ),
    ] = None,
    seed: common.Seed = 0,
    fillers: common.FillersOption = common.Fillers.keep,
) -> None:
    """Measure a recogniser on transcribed speech: WER, CER, RTFx, and a report in a folder."""
    with common.one_line_errors():
        settings = common.only_overrides(overrides)
        paths = common.manifests(data)
        output = common.folder_for("the report", output)
        from kikitori.data.corruption import parse_corruption
        from kikitori.data.manifest import read_manifest
        from kikitori.scoring.fillers import check_fillers
        from kikitori.text.normalize import normalize

        corruptions = [*map(parse_corruption, corrupt or ())]
        if normalizer is not None:
            normalize(normalizer, "")  # refuses a wrong name before the work begins
        from kikitori.workflows import evaluate as evaluation

        rows = {str(path): read_manifest(path, split=split).utterances for path in paths}
        sets = {name: evaluation.with_reference(utterances, reference) for name, utterances in rows.items()}
        without_fillers = fillers is common.Fillers.remove
        if without_fillers:
            check_fillers(row for members in sets.values() for row in members)
        recognizer = common.load_recognizer(model, decoding, settings, device, dtype, adapter, language, window)
        if hotwords is not None:
            from kikitori.scorers.hotwords.phrases import read_hotwords

            recognizer = replace(recognizer, hotwords=read_hotwords(hotwords))
        common.make_folder(output)
        from kikitori.scoring.comparison.robustness import CLEAN, folder_of, format_robustness, write_robustness
        from kikitori.scoring.report import format_table
        from kikitori.search.guards import Guards

        system = evaluation.Searching(recognizer, recognizer.decoding, Guards(on_runaway.value, on_no_speech.value))
        setting = evaluation.Setting(normalizer, batch_size, seed=seed, without_fillers=without_fillers)
        with progress_bar("evaluating", sum(map(len, sets.values())) * (1 + len(corruptions))) as progress:
            report, predictions = evaluation.evaluate_into(output, system, sets, setting, progress)
            reports = {CLEAN: report}
            for each in corruptions:
                folder, corrupted = folder_of(output, each.name), replace(setting, corruption=each)
                reports[each.name], _ = evaluation.evaluate_into(folder, system, sets, corrupted, progress)
        print(format_table(report), flush=True)
        if corruptions:
            write_robustness(output, reports)
            print(f"\n{format_robustness(reports)}", flush=True)
        failures = [p for rows in predictions.values() for p in rows if p.error is not None]
        for prediction in failures:
            print(f"kikitori: {prediction.error}", file=sys.stderr)
    if failures:
        raise typer.Exit(common.SOME_FAILED)
