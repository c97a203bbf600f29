"""`kikitori rescore`: n-best lists in another order, by language models and scales."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import Device, DeviceOption, Folder, folder_for, make_folder, one_line_errors, only_overrides
from kikitori.errors import ConfigError


def rescore(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl of an evaluation with n-best lists.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides such as decoding.scorers.lm.path=FOLDER decoding.scorers.lm.scale=0.3."),
    ] = None,
    decoding: Annotated[str, typer.Option("--decoding", help="A YAML file with search: rescoring.")] = "rescoring",
    output: Folder = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Recogniser that wrote the labels; without it, texts count.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Put the n-best lists of an evaluation in another order, by language models and scales."""
    with one_line_errors():
        settings = only_overrides(overrides, "write decoding.name=value")
        output = folder_for("the report", output)
        from kikitori.search.options import load_decoding

        options = load_decoding(decoding, settings)
        if options.search != "rescoring":
            raise ConfigError(f"'{options.search}' rescores nothing", where=decoding, remedy="use search: rescoring")
        from kikitori.model.device import torch_device
        from kikitori.scoring.predictions import read_predictions
        from kikitori.scoring.report import build_report, format_table, write_report
        from kikitori.text.units import load_units
        from kikitori.workflows import rescore as rescoring
        from kikitori.workflows.machine.conditions import versions

        sets = read_predictions(predictions)
        make_folder(output)
        units = None if model is None else load_units(model)
        done = rescoring.rescore(sets, options, units, torch_device(device.value))
        name = str(predictions)
        report = build_report(done, normalizer=None, decoding=options.search, model=name, versions=versions())
        write_report(output, report, done)
        print(format_table(report), flush=True)
