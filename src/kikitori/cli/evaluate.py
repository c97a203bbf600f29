"""`kikitori evaluate`: transcribed speech in, error rates and a report out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli import common
from kikitori.cli.recognisers.baselines import AnyModel, baseline_of
from kikitori.cli.recognisers.spread import EngineName, EngineOption, ShardOption, Workers, recognizers, together
from kikitori.io.progress import progress_bar

if TYPE_CHECKING:
    from kikitori.recognizer import Recognizer


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
    model: AnyModel = None,
    decoding: common.Search = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    language: common.Language = None,
    decoder: common.Decoder = None,
    window: common.Window = common.WindowSize.padded,
    hotwords: common.Hotwords = None,
    on_runaway: common.Runaway = "keep",
    on_no_speech: common.NoSpeech = "empty",
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
    engine: EngineOption = EngineName.local,
    workers: Workers = None,
    shard: ShardOption = None,
) -> None:
    """Measure a recogniser on transcribed speech: WER, CER, RTFx, and a report in a folder.

    A run that was killed goes on when it is called again; of shards, the last one to end writes the report.
    """
    with common.one_line_errors():
        settings = common.only_overrides(overrides)
        paths = common.manifests(data)
        output = common.folder_for("the report", output)
        from kikitori.data.corruption import parse_corruption
        from kikitori.data.manifest import read_manifest, with_reference
        from kikitori.scoring.fillers import check_fillers
        from kikitori.text.normalize import check_leaves_something, normalize

        corruptions = [*map(parse_corruption, corrupt or ())]
        if normalizer is not None:
            normalize(normalizer, "")  # refuses a wrong name before the manifests are read
        from kikitori.scorers.hotwords.phrases import read_hotwords
        from kikitori.scoring.comparison.robustness import CLEAN, folder_of, format_robustness, write_robustness
        from kikitori.scoring.report import format_table
        from kikitori.search.guards import Guards
        from kikitori.workflows import evaluate as evaluation
        from kikitori.workflows.sharing.evaluation import Pooled, Sharing, forget, gather, predict_into
        from kikitori.workflows.sharing.shards import read_shard

        rows = {str(path): read_manifest(path, split=split).utterances for path in paths}
        sets = {name: with_reference(utterances, reference) for name, utterances in rows.items()}
        if normalizer is not None:
            for name, members in sets.items():
                check_leaves_something(normalizer, (row.text or "" for row in members), name)
        without_fillers = fillers is common.Fillers.remove
        if without_fillers:
            check_fillers(row for members in sets.values() for row in members)
        share, guards = read_shard(shard), Guards(on_runaway, on_no_speech)
        phrases = () if hotwords is None else read_hotwords(hotwords)
        setting = evaluation.Setting(normalizer, batch_size, seed=seed, without_fillers=without_fillers)
        jobs = {CLEAN: (output, setting)}
        for each in corruptions:
            jobs[each.name] = (folder_of(output, each.name), replace(setting, corruption=each))

        together_at_most = min(batch_size, max(map(len, sets.values())))
        ours = {
            "--decoding": bool(decoding),
            "overrides": bool(settings),
            "--adapter": adapter is not None,
            "--hotwords": hotwords is not None,
            "--decoder": decoder is not None,
            "--window": window is not common.WindowSize.padded,
            "--engine": engine is not EngineName.local,
        }

        def make(where: common.Device) -> "Recognizer":
            made = common.load_recognizer(model, decoding, settings, where, dtype, adapter, language, window, decoder)
            return replace(made, hotwords=phrases)

        def prepare(recognizer: "Recognizer") -> None:
            evaluation.warm_up(evaluation.Searching(recognizer, recognizer.decoding, guards), together_at_most)

        @contextmanager
        def shared() -> "Iterator[Sharing]":
            baseline = baseline_of(model, device, dtype, language, ours)
            if baseline is not None:
                with together():
                    evaluation.warm_up(baseline, together_at_most)
                    yield Sharing(baseline, None, share)
                return
            with recognizers(make, engine, workers, device, prepare) as (recognizer, pool):
                pooled = None if pool is None else Pooled(pool, recognizer.decoding, guards)
                yield Sharing(evaluation.Searching(recognizer, recognizer.decoding, guards), pooled, share)

        with shared() as sharing:
            rows_here = len(share.of(range(sum(map(len, sets.values())))))
            with progress_bar("evaluating", rows_here * len(jobs)) as progress:
                for folder, each_setting in jobs.values():
                    common.make_folder(folder)
                    predict_into(folder, sets, each_setting, sharing, progress)
        gathered = {name: gather(folder, sets, each_setting, sharing) for name, (folder, each_setting) in jobs.items()}
        found = {name: predictions for name, predictions in gathered.items() if predictions is not None}
        if len(found) < len(jobs):
            done = f"shard {share.number} of {share.count} is done"
            print(f"kikitori: {done}; the last one writes the report", file=sys.stderr)
            return
        where = None if sharing.pooled is None else sharing.pooled.pool.device
        reports = {
            name: evaluation.report_into(jobs[name][0], sharing.system, predictions, jobs[name][1], where)
            for name, predictions in found.items()
        }
        if corruptions:
            write_robustness(output, reports)
        first = {folder: forget(folder, share) for folder, _ in jobs.values()}
        if not first[output]:
            return  # another process that ended at the same time has said all
        report, predictions = reports[CLEAN], found[CLEAN]
        print(format_table(report), flush=True)
        if corruptions:
            print(f"\n{format_robustness(reports)}", flush=True)
        failures = [p for rows in predictions.values() for p in rows if p.error is not None]
        for prediction in failures:
            print(f"kikitori: {prediction.error}", file=sys.stderr)
    if failures:
        raise typer.Exit(common.SOME_FAILED)
