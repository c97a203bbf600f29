"""`kikitori data convert`: a data set in another layout becomes a manifest."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError, counted


def convert(
    source: Annotated[Path, typer.Argument(help="Folder or file of the data set, or its id on the hub, OWNER/NAME.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Manifest to write (.jsonl), or a folder for manifest.jsonl."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Layout: kaldi, hugging-face, lhotse, webdataset, common-voice, librispeech, jsut, csj, reazonspeech, "
            "table; found out by default.",
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Part to take, by the data set's own name; may be repeated.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="Config of a data set of the hub, where it has several.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit of a data set of the hub.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Code of the language of all rows, such as en.")
    ] = None,
    audio_column: Annotated[
        str | None, typer.Option("--audio-column", help="Column of the audio, where its name is unusual.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Column of the text, where its name is unusual.")
    ] = None,
) -> None:
    """Write a data set of Kaldi, Hugging Face, Lhotse or a known corpus as a manifest; killed, it goes on."""
    with common.one_line_errors():
        from kikitori.data import convert as conversion
        from kikitori.data.layouts.base import Columns, Layout
        from kikitori.data.layouts.choose import HUGGING_FACE, check_columns, choose_layout
        from kikitori.data.layouts.hub import fetch, is_hub_id
        from kikitori.io.progress import now_and_then
        from kikitori.text.forms.languages import check_language

        if output is None:
            raise ConfigError("no manifest given", where="-o", remedy="name a file .jsonl or a folder")
        check_language(language, "--language")
        columns = Columns(audio_column, text_column)
        reader: Layout
        if is_hub_id(source) and layout in (None, HUGGING_FACE):
            manifest = conversion.manifest_path(output)
            fetched = fetch(source.as_posix(), config=config, revision=revision, splits=split or ())
            name, seen, reader = HUGGING_FACE, fetched.evidence(source), fetched
        else:
            for option, value in (("--config", config), ("--revision", revision)):
                if value is not None:
                    remedy = "it belongs to an id of the hub, OWNER/NAME, that is no folder here"
                    raise ConfigError("is of no use here", where=option, remedy=remedy)
            name, seen, reader = choose_layout(source, layout)
            check_columns(name, columns)
            manifest = conversion.manifest_path(output)
        if layout is None:
            print(f"kikitori: read as {name} ({seen})", file=sys.stderr)
        left_out = 0

        def leave_out(problem: str) -> None:
            nonlocal left_out
            left_out += 1
            print(f"kikitori: {problem}; left out", file=sys.stderr)

        done, tell = 0, now_and_then()

        def progress(more: int) -> None:
            nonlocal done
            done += more
            tell(lambda: f"converting: {counted(done, 'row')}")

        result = conversion.convert(
            reader.read(source, columns, leave_out),
            manifest,
            splits=tuple(split or ()),
            language=language,
            leave_out=leave_out,
            progress=progress,
        )
        for line in result.lines():
            print(f"kikitori: {line}", file=sys.stderr)
        print(manifest, flush=True)
    if left_out:
        raise typer.Exit(common.SOME_FAILED)
