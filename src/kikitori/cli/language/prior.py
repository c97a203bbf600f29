"""`kikitori prior`: how probable each label is by itself, for fusion with a language model."""

from enum import StrEnum
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar


class Estimate(StrEnum):
    """How a label prior is estimated."""

    softmax = "softmax"
    counts = "counts"
    sampled_counts = "sampled_counts"


def prior(
    data: common.Data = None,
    split: common.Split = None,
    model: common.Model = None,
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
    text_form: common.TextFormOption = common.TextForm.own,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Segmentations drawn of each transcript.")] = 4,
    seed: common.Seed = 0,
    output: common.SafetensorsFile = None,
    batch_size: common.BatchSize = 8,
    device: common.DeviceOption = common.Device.auto,
) -> None:
    """Estimate how probable each label is by itself, for fusion with a language model."""
    with common.one_line_errors():
        paths = common.manifests(data)
        if output is None or output.suffix != ".safetensors":
            raise ConfigError("no file for the prior", where="-o", remedy="name one, such as prior.safetensors")
        if units is not None and by == Estimate.softmax:
            raise ConfigError("a CTC head has its own units", where="--units", remedy="use --by counts")
        if phones and by != Estimate.softmax:
            raise ConfigError("transcripts have no phones", where="--phones", remedy="use --by softmax")
        from kikitori.loading import load
        from kikitori.scorers.prior import save_prior
        from kikitori.text.units import labels_fingerprint, load_units, vocabulary_fingerprint, with_text_form
        from kikitori.workflows.prior import sampled_text_prior, speech_prior, text_prior

        rows = common.read_rows(paths, split)
        with common.warnings_as_lines():
            recognizer = load(model, device=device.value)
        counted = recognizer.loaded.units if units is None else with_text_form(load_units(units), text_form.value)
        common.make_folder(output.parent)
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
