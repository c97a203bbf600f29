"""`kikitori picture ...`: what the speech LLM attends to, and the posteriors of the CTC head."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.extras import require

Recording = Annotated[Path, typer.Argument(help="Audio file.")]
Picture = Annotated[Path | None, typer.Option("-o", "--output", help="Picture, .png; numbers go to an .npz beside it.")]


def attention(
    audio: Recording,
    overrides: common.Overrides = None,
    output: Picture = None,
    layer: Annotated[int | None, typer.Option("--layer", min=1, help="LLM layer from 1; the last by default.")] = None,
    head: Annotated[int | None, typer.Option("--head", min=1, help="Head from 1; the mean of all by default.")] = None,
    model: common.Model = None,
    decoding: common.Search = None,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    decoder: common.Decoder = None,
) -> None:
    """Draw what the speech LLM attends to, in speech and text, while it writes the transcript of a recording."""
    with common.one_line_errors():
        file = _picture_file(output)
        require("matplotlib", "pictures need", where=file)
        recognizer = common.load_recognizer(model, decoding, overrides or [], device, dtype, adapter, decoder=decoder)
        from kikitori.workflows.picture import attention_weights, draw_attention

        found = attention_weights(recognizer, audio, layer=layer, decoding=recognizer.decoding)
        draw_attention(found, file, head=head)
        print(file)


def ctc(
    audio: Recording,
    overrides: common.Overrides = None,
    output: Picture = None,
    model: common.Model = None,
    decoding: common.Search = None,
    device: common.DeviceOption = common.Device.auto,
    dtype: common.DtypeOption = common.Precision.float32,
    adapter: common.Adapter = None,
    decoder: common.Decoder = None,
) -> None:
    """Draw the CTC posteriors of the labels of a transcript, frame by frame."""
    with common.one_line_errors():
        file = _picture_file(output)
        require("matplotlib", "pictures need", where=file)
        recognizer = common.load_recognizer(model, decoding, overrides or [], device, dtype, adapter, decoder=decoder)
        from kikitori.workflows.picture import ctc_posteriors, draw_ctc

        found = ctc_posteriors(recognizer, audio, decoding=recognizer.decoding)
        draw_ctc(found, file)
        print(file)


def _picture_file(output: Path | None) -> Path:
    if output is None or output.suffix != ".png":
        raise ConfigError("no file for the picture", where="-o", remedy="name one, such as talk.png")
    common.make_folder(output.parent)
    return output
