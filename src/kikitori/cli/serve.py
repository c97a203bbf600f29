"""`kikitori serve`: recognisers over HTTP."""

from dataclasses import replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import (
    BatchSize,
    Device,
    DeviceOption,
    DtypeOption,
    Language,
    Precision,
    Search,
    Window,
    WindowSize,
    load_recognizer,
    one_line_errors,
    search_for,
)
from kikitori.errors import ConfigError
from kikitori.types import DecoderName

if TYPE_CHECKING:
    from kikitori.recognizer import Recognizer


class DecoderChoice(StrEnum):
    """Decoders, in a form of which an option may be repeated."""

    encoder_decoder = "encoder_decoder"
    speech_llm = "speech_llm"


PACKAGES = ("fastapi", "uvicorn", "multipart", "websockets")


def serve(
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Model folder or hub id; may be repeated; tiny-en by default.")
    ] = None,
    decoding: Search = None,
    decoder: Annotated[
        list[DecoderChoice] | None,
        typer.Option("--decoder", help="A decoder of models that have two; may be repeated: both share the encoder."),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option("--search", help="A search to offer beside a model's own; may be repeated; by default all."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 8000,
    keys: Annotated[Path | None, typer.Option("--keys", help="File of bearer keys, one a line.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without a key.")] = False,
    max_megabytes: Annotated[float, typer.Option(min=0.1, help="Largest upload.")] = 25.0,
    max_seconds: Annotated[float, typer.Option(min=1.0, help="Longest recording.")] = 3600.0,
    queue_seconds: Annotated[float, typer.Option(min=1.0, help="Seconds of audio that may wait.")] = 3600.0,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds within which a request is answered.")] = 600.0,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    language: Language = None,
    window: Window = WindowSize.padded,
) -> None:
    """Serve recognisers over HTTP: OpenAI's API, live transcription, a page (docs/server.md)."""
    with one_line_errors():
        if missing := [name for name in PACKAGES if find_spec(name) is None]:
            remedy = "run `pip install 'kikitori[server]'`"
            raise ConfigError(f"needs {', '.join(missing)}", where="kikitori serve", remedy=remedy)
        from kikitori.server.settings import NO_KEYS, Settings, read_keys
        from kikitori.server.uploads import UploadLimits
        from kikitori.workflows.serve import serve as run

        settings = Settings(
            host=host,
            port=port,
            keys=NO_KEYS if keys is None else read_keys(keys),
            insecure=insecure,
            uploads=UploadLimits(max_bytes=round(max_megabytes * 1024**2), max_seconds=max_seconds),
            deadline_seconds=deadline,
        )
        models: list[str | None] = [*model] if model else [None]
        asked: list[DecoderName | None] = [*dict.fromkeys(each.value for each in decoder or ())] or [None]
        recognizers = []
        for each in models:
            first = load_recognizer(each, decoding, [], device, dtype, None, language, window, min(asked, key=str))
            recognizers += [_second_decoder(first, name, decoding) if name else first for name in asked]
        run(recognizers, settings, searches=search, batch_size=batch_size, queue_seconds=queue_seconds)


def _second_decoder(recognizer: "Recognizer", decoder: DecoderName, decoding: str | None) -> "Recognizer":
    """The second decoder of a recogniser's folder, as of `with_decoder`, with the search that `--decoding` names.

    Raises:
        KikitoriError: There is none, or no such search.
    """
    from kikitori.loading import with_decoder

    second = with_decoder(recognizer, decoder)
    return replace(second, decoding=search_for(second.folder, decoding, []) or second.decoding)
