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
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    json = "json"
    jsonl = "jsonl"
    all = "all"


def transcribe(
    audio: Annotated[list[str], typer.Argument(help="Audio files, and overrides such as decoding.max_labels=50.")],
    model: Model = None,
    decoding: Search = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for transcript files.")] = None,
    formats: Annotated[
        list[Format] | None, typer.Option("-f", "--format", help="Formats of the files in -o, or of one file printed.")
    ] = None,
    word_times: Annotated[
        bool | None,
        typer.Option(help="Times and confidences of words; by default for srt and vtt, where there can be."),
    ] = None,
    max_line_width: Annotated[int, typer.Option(min=1, help="Of subtitles: characters in a line.")] = 42,
    max_line_count: Annotated[int, typer.Option(min=1, help="Of subtitles: lines shown at a time.")] = 2,
    highlight_words: Annotated[
        bool, typer.Option("--highlight-words", help="Of subtitles: underline each word while it is said.")
    ] = False,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
    language: Language = None,
    window: Window = WindowSize.padded,
    on_runaway: Runaway = OnRunaway.ctc,
    on_no_speech: NoSpeech = OnNoSpeech.empty,
) -> None:
    """Transcribe recordings of any length: one line per file (path, tab, text), or files in a folder with -o."""
    with one_line_errors():
        files, overrides = split_overrides(audio)
        if not files:
            raise ConfigError("no audio file given", remedy="name at least one file")
        from kikitori.io.subtitles import CueOptions
        from kikitori.io.writers import FORMATS, SUBTITLES, render, unique_stems, write_transcript
        from kikitori.search.guards import Guards

        names = FORMATS if formats and Format.all in formats else [f.value for f in formats or []]
        if output is None and len(names) > 1:
            raise ConfigError("several formats are several files", where="-f", remedy="name their folder with -o")
        if output is None and names and len(files) > 1:
            raise ConfigError("-f prints one file", where="-f", remedy="name a folder for several with -o")
        recognizer = load_recognizer(model, decoding, overrides, device, dtype, adapter, language, window)
        if output is not None:
            make_folder(output)
        subtitles = any(name in SUBTITLES for name in names)
        timed = (subtitles and recognizer.has_word_times) if word_times is None else word_times
        if subtitles and not timed:
            if highlight_words:
                raise ConfigError("no words without their times", where="--highlight-words", remedy="leave it out")
            print("kikitori: times of subtitles within an utterance are estimated, without a CTC head", file=sys.stderr)
        cues = CueOptions(max_line_width, max_line_count, highlight_words)
        written = recognizer.loaded.trained_on.language
        failed = 0
        paths = [Path(file) for file in files]
        recognizer = replace(recognizer, guards=Guards(on_runaway.value, on_no_speech.value))
        results = recognizer.try_transcribe_many(paths, batch_size=batch_size, word_times=timed)
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
                    if output is not None:
                        write_transcript(result, path, output, names or ["txt"], stem=stem, language=written, cues=cues)
                    elif names:
                        print(
                            render(result, names[0], audio=str(path), language=written, cues=cues), end="", flush=True
                        )
                    else:
                        print(f"{path}\t{' '.join(re.split(LINE_BREAKS, result.text))}", flush=True)
                except KikitoriError as error:
                    failed += 1
                    complain(error)
                progress(1)
    if failed:
        raise typer.Exit(SOME_FAILED)
