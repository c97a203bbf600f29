"""`kikitori transcribe`: recordings in, transcripts out."""

import re
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import (
    SOME_FAILED,
    Adapter,
    BatchSize,
    Device,
    DeviceOption,
    DtypeOption,
    Language,
    Model,
    NoSpeech,
    OnNoSpeech,
    OnRunaway,
    Precision,
    Runaway,
    Search,
    Window,
    WindowSize,
    complain,
    load_recognizer,
    make_folder,
    one_line_errors,
    progress_bar,
    split_overrides,
)
from kikitori.errors import ConfigError, KikitoriError

LINE_BREAKS = r"[\t\n\v\f\r\x85\u2028\u2029]+"


class Format(StrEnum):
    """Transcript file formats."""

    txt = "txt"
    json = "json"
    jsonl = "jsonl"
    all = "all"


def transcribe(
    audio: Annotated[list[str], typer.Argument(help="Audio files, and overrides such as decoding.max_labels=50.")],
    model: Model = None,
    decoding: Search = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for transcript files.")] = None,
    formats: Annotated[list[Format] | None, typer.Option("-f", "--format", help="Formats, with -o.")] = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
    language: Language = None,
    window: Window = WindowSize.padded,
    on_runaway: Runaway = OnRunaway.ctc,
    on_no_speech: NoSpeech = OnNoSpeech.empty,
) -> None:
    """Transcribe audio files: one line per file (path, tab, text), or files in a folder with -o."""
    with one_line_errors():
        files, overrides = split_overrides(audio)
        if not files:
            raise ConfigError("no audio file given", remedy="name at least one file")
        if formats and output is None:
            raise ConfigError("-f writes files", where="-f", remedy="name their folder with -o")
        recognizer = load_recognizer(model, decoding, overrides, device, dtype, adapter, language, window)
        from kikitori.io.writers import FORMATS, unique_stems, write_transcript
        from kikitori.search.guards import Guards

        if output is not None:
            make_folder(output)
        names = FORMATS if formats and Format.all in formats else [f.value for f in formats or [Format.txt]]
        written = recognizer.loaded.trained_on.language
        failed = 0
        paths = [Path(file) for file in files]
        recognizer = replace(recognizer, guards=Guards(on_runaway.value, on_no_speech.value))
        results = recognizer.try_transcribe_many(paths, batch_size=batch_size)
        with progress_bar("transcribing", 0 if output is None else len(paths)) as progress:
            for path, stem, result in zip(paths, unique_stems(paths), results, strict=True):
                try:
                    if isinstance(result, KikitoriError):
                        raise result
                    for flag in result.flags:
                        why = f" ({result.reasons[flag]})" if flag in result.reasons else ""
                        print(
                            f"kikitori: {path}: {flag.replace('_', ' ')}{why}; check this transcript", file=sys.stderr
                        )
                    if output is None:
                        print(f"{path}\t{' '.join(re.split(LINE_BREAKS, result.text))}", flush=True)
                    else:
                        write_transcript(result, path, output, names, stem=stem, language=written)
                except KikitoriError as error:
                    failed += 1
                    complain(error)
                progress(1)
    if failed:
        raise typer.Exit(SOME_FAILED)
