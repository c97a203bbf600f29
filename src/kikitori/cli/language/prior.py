"""`kikitori prior`: how probable each label is by itself, for fusion with a language model."""

from enum import StrEnum
from typing import Annotated

import typer

from kikitori.cli.common import (
    BatchSize,
    Data,
    Device,
    DeviceOption,
    Model,
    SafetensorsFile,
    Seed,
    Split,
    TextForm,
    TextFormOption,
    make_folder,
    manifests,
    one_line_errors,
    progress_bar,
    read_rows,
    warnings_as_lines,
)
from kikitori.errors import ConfigError


class Estimate(StrEnum):
    """How a label prior is estimated."""

    softmax = "softmax"
    counts = "counts"
    sampled_counts = "sampled_counts"


def prior(
    data: Data = None,
    split: Split = None,
    model: Model = None,
    by: Annotated[
        Estimate,
        typer.Option(
            "--by",
            help="softmax: what the CTC head gives on average; counts: of transcripts; sampled_counts: of several "
            "segmentations of them, drawn at random.",
        ),
    ] = Estimate.softmax,
    phones: Annotated[bool, typer.Option("--phones", help="Of phones, what the phone head gives on average.")] = False,
    units: Annotated[
        str | None, typer.Option("--units", help="Count in the units of this language model, as it reads texts.")
    ] = None,
    text_form: TextFormOption = TextForm.own,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Segmentations drawn of each transcript.")] = 4,
    seed: Seed = 0,
    output: SafetensorsFile = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
) -> None:
    """Estimate how probable each label is by itself, for fusion with a language model."""
    with one_line_errors():
        paths = manifests(data)
        if output is None or output.suffix != ".safetensors":
            raise ConfigError("no file for the prior", where="-o", remedy="name one, such as prior.safetensors")
        if units is not None and by == Estimate.softmax:
            raise ConfigError("a CTC head has its own units", where="--units", remedy="use --by counts")
        if phones and by != Estimate.softmax:
            raise ConfigError("transcripts have no phones", where="--phones", remedy="use --by softmax")
        from kikitori.recognizer import load
        from kikitori.scorers.prior import save_prior
        from kikitori.text.units import labels_fingerprint, load_units, vocabulary_fingerprint, with_text_form
        from kikitori.workflows.prior import sampled_text_prior, speech_prior, text_prior

        rows = read_rows(paths, split)
        with warnings_as_lines():
            recognizer = load(model, device=device.value)
        counted = recognizer.loaded.units if units is None else with_text_form(load_units(units), text_form.value)
        make_folder(output.parent)
        match by:
            case Estimate.softmax:
                with progress_bar("encoding", len(rows)) as progress:
                    found = speech_prior(recognizer, rows, phones=phones, batch_size=batch_size, progress=progress)
            case Estimate.counts:
                found = text_prior(counted, rows)
            case Estimate.sampled_counts:
                found = sampled_text_prior(counted, rows, samples=samples, seed=seed)
        named = labels_fingerprint(recognizer.phones) if phones else vocabulary_fingerprint(counted)
        save_prior(output, found, vocabulary=named)
        print(output, flush=True)
