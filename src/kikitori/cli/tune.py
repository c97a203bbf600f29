"""`kikitori tune`: the scales of a search with the fewest word errors."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar

if TYPE_CHECKING:
    from kikitori.workflows.rescore import Sets


def tune(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="predictions.jsonl with n-best lists, which are joined, and overrides such as "
            "decoding.scorers.lm.path=FOLDER."
        ),
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Speech instead, a manifest; may repeat.")] = None,
    split: common.Split = None,
    decoding: Annotated[
        str | None,
        typer.Option(
            "--decoding",
            help="What to tune: shallow_fusion, delayed_fusion, lexicon, rescoring, or a YAML; by name from the "
            "settings in the model's own decoding.yaml, where that has this search.",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", help="Scales to try, NAME=FROM:TO:STEP, or to hold, NAME=VALUE; may repeat."),
    ] = None,
    axes: Annotated[str, typer.Option("--axes", help="The two scales of the picture, such as lm,prior.")] = "",
    output: common.Folder = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The recogniser; of a file, the one that wrote the labels.")
    ] = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    decoder: common.Decoder = None,
) -> None:
    """Find the scales of a search with the lowest WER on transcribed speech, or on n-best lists of an evaluation."""
    with common.one_line_errors():
        files, overrides = common.split_overrides(arguments or [])
        if bool(files) == bool(data) or (split and not data):
            remedy = "name predictions.jsonl files, or speech with --data"
            raise ConfigError("what to tune on is not clear", remedy=remedy)
        output = common.folder_for("the results", output)
        from kikitori.scoring.tuning.grids import parse_grid
        from kikitori.workflows.tuning import tune as tuning

        given = dict(parse_grid(text) for text in scale or ())
        picture = [name.strip() for name in axes.split(",") if name.strip()]
        failed = 0
        if data:
            from kikitori.data.manifest import read_manifest
            from kikitori.workflows.tuning.lists import list_searches, lists_from_speech

            speech = {str(path): read_manifest(path, split=split).utterances for path in data}
            recognizer = common.load_recognizer(model, decoding, overrides, device, dtype, adapter, decoder=decoder)
            options = tuning.check_tunable(recognizer.decoding)
            grids = tuning.chosen_grids(options, given, folder=recognizer.folder)
            picture = tuning.chosen_axes(grids, picture)
            common.make_folder(output)
            searches = list_searches(options, grids, recognizer.folder)
            with progress_bar("searching", len(searches) * sum(map(len, speech.values()))) as progress:
                sets: Sets = lists_from_speech(recognizer, speech, searches, batch_size=batch_size, progress=progress)
            tuning.write_lists(output, sets, model=recognizer.name)
            errors = [row.error for rows in sets.values() for row in rows if row.error is not None]
            for error in errors:
                print(f"kikitori: {error}", file=sys.stderr)
            failed = len(errors)
        else:
            from kikitori.io.model_folder import model_folder
            from kikitori.model.device import torch_device
            from kikitori.scoring.predictions import merged_lists, read_predictions
            from kikitori.text.units import load_units
            from kikitori.workflows.rescore import stored_scores
            from kikitori.workflows.tuning.lists import with_missing_scores

            found = merged_lists([read_predictions(Path(file)) for file in files])
            folder = Path(model_folder(model)) if model is not None and Path(model).is_dir() else None
            search = common.search_for(folder, decoding, overrides)
            if search is None:
                remedy = "name one with --decoding, such as shallow_fusion or rescoring"
                raise ConfigError("which search shall be tuned", where="--decoding", remedy=remedy)
            options = tuning.check_tunable(search)
            grids = tuning.chosen_grids(options, given, stored_scores(found), folder)
            picture = tuning.chosen_axes(grids, picture)
            common.make_folder(output)
            units = None if model is None else load_units(model)
            with common.warnings_as_lines():
                sets = with_missing_scores(found, options, grids, units, torch_device(device.value), folder)
            if sets is not found:
                tuning.write_lists(output, sets, model=", ".join(files))
        from kikitori.io.model_folder import DECODING

        result = tuning.tune_scales(sets, options, grids)
        source = ", ".join([*files, *(f"{path}" for path in data or ()), *([f"split {split}"] if split else [])])
        if not tuning.write_tuning(output, result, picture, source):
            print("kikitori: no picture without matplotlib; pip install 'kikitori[train]'", file=sys.stderr)
        for edge in result.tuned.edges:
            print(f"kikitori: {edge} is best at the end of its grid; try a wider --scale {edge}=...", file=sys.stderr)
        print(tuning.format_tuning(result))
        print(f"\n{output / DECODING}", flush=True)
    if failed:
        raise typer.Exit(common.SOME_FAILED)
