"""`kikitori data pseudo-label`: text to train on, recognised in speech without transcripts."""

import sys
from math import inf, isfinite
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError, DataError
from kikitori.io.progress import progress_bar


def pseudo_label(
    overrides: common.Overrides = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="JSONL manifest; texts in it only serve to count errors. May be repeated."),
    ] = None,
    split: common.Split = None,
    output: common.Folder = None,
    min_confidence: Annotated[
        float | None,
        typer.Option("--min-confidence", help="Leave out texts with less; the table of an earlier run says how much."),
    ] = None,
    rate: Annotated[
        tuple[float, float],
        typer.Option("--rate", help="Leave out texts with fewer or more letters and digits per second of audio."),
    ] = (2.0, 30.0),
    model: common.Model = None,
    decoding: common.Search = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    decoder: common.Decoder = None,
) -> None:
    """Have a recogniser write the texts of speech, as a manifest to train on; killed, it goes on."""
    with common.one_line_errors():
        settings = common.only_overrides(overrides)
        paths = common.manifests(data)
        output = common.folder_for("the manifest", output)
        if min_confidence is not None and not isfinite(min_confidence):
            raise ConfigError("is no number", where="--min-confidence", remedy="leave it out to keep all")
        if not 0.0 <= rate[0] < rate[1]:
            raise ConfigError("is no range", where="--rate", remedy="write --rate 2 30")
        from kikitori.scoring.pseudo_labels import PseudoLabelFilter
        from kikitori.workflows.pseudo_label import MANIFEST, origin_of, recognize, write_labels

        rows = common.read_rows(paths, split)
        recognizer = common.load_recognizer(model, decoding, settings, device, dtype, adapter, decoder=decoder)
        options = recognizer.decoding
        common.make_folder(output)
        with progress_bar("recognising", len(rows)) as progress:
            found = recognize(recognizer, rows, options, output, batch_size=batch_size, progress=progress)
        failures = [each.error for each in found if each.error is not None]
        for error in failures:
            print(f"kikitori: {error}", file=sys.stderr)
        label_filter = PseudoLabelFilter(-inf if min_confidence is None else min_confidence, rate)
        labels = write_labels(output, rows, found, label_filter, origin_of(recognizer, options))
        for line in labels.lines():
            print(f"kikitori: {line}", file=sys.stderr)
        if not labels.kept.utterances:
            raise DataError(
                "no text is trusted, so there is no manifest",
                where=output,
                remedy="lower --min-confidence, or see left_out.jsonl",
            )
        print(output / MANIFEST, flush=True)
    if failures:
        raise typer.Exit(common.SOME_FAILED)
