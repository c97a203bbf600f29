"""`kikitori convert nue-asr | picture attention | picture ctc | bench combination | bench decoding`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import (
    Adapter,
    Device,
    DeviceOption,
    DtypeOption,
    Model,
    Precision,
    Search,
    folder_for,
    load_recognizer,
    make_folder,
    one_line_errors,
)
from kikitori.errors import ConfigError

Recording = Annotated[Path, typer.Argument(help="Audio file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as decoding.max_labels=50.")]
Picture = Annotated[Path | None, typer.Option("-o", "--output", help="Picture, .png; numbers go to an .npz beside it.")]


def convert_nue_asr(
    source: Annotated[str, typer.Argument(help="Folder in the layout of rinna/nue-asr, or that hub id.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
) -> None:
    """Convert rinna/nue-asr; its pickled weights are read too, as tensors alone."""
    with one_line_errors():
        output = folder_for("the model", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_nue_asr(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)


def picture_attention(
    audio: Recording,
    overrides: Overrides = None,
    output: Picture = None,
    layer: Annotated[int | None, typer.Option("--layer", min=1, help="LLM layer from 1; the last by default.")] = None,
    head: Annotated[int | None, typer.Option("--head", min=1, help="Head from 1; the mean of all by default.")] = None,
    model: Model = None,
    decoding: Search = None,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
) -> None:
    """Draw what the speech LLM attends to, in speech and text, while it writes the transcript of a recording."""
    with one_line_errors():
        file = _picture_file(output)
        recognizer, options = load_recognizer(model, decoding, overrides or [], device, dtype, adapter)
        from kikitori.workflows.picture import attention_weights, draw_attention

        found = attention_weights(recognizer, audio, layer=layer, decoding=options)
        draw_attention(found, file, head=head)
        print(file)


def picture_ctc(
    audio: Recording,
    overrides: Overrides = None,
    output: Picture = None,
    model: Model = None,
    decoding: Search = None,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
) -> None:
    """Draw what the CTC head hears of the transcript of a recording, and where."""
    with one_line_errors():
        file = _picture_file(output)
        recognizer, options = load_recognizer(model, decoding, overrides or [], device, dtype, adapter)
        from kikitori.workflows.picture import ctc_posteriors, draw_ctc

        found = ctc_posteriors(recognizer, audio, decoding=options)
        draw_ctc(found, file)
        print(file)


def _picture_file(output: Path | None) -> Path:
    if output is None or output.suffix != ".png":
        raise ConfigError("no file for the picture", where="-o", remedy="name one, such as talk.png")
    make_folder(output.parent)
    return output
