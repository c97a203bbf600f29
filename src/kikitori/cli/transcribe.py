"""`kikitori transcribe`: recordings in, transcripts out."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import (
    SOME_FAILED,
    Adapter,
    BatchSize,
    Decoder,
    Device,
    DeviceOption,
    DtypeOption,
    Hotwords,
    Language,
    NoSpeech,
    Precision,
    Runaway,
    Search,
    Window,
    WindowSize,
    complain,
    load_recognizer,
    make_folder,
    one_line_errors,
    split_overrides,
)
from kikitori.cli.recognisers.baselines import AnyModel, baseline_of
from kikitori.cli.recognisers.spread import EngineName, EngineOption, ShardOption, Workers, recognizers, together
from kikitori.errors import ConfigError, KikitoriError
from kikitori.io.progress import now_and_then

if TYPE_CHECKING:
    from kikitori.engine.pool import Pool
    from kikitori.io.recordings import Recording
    from kikitori.recognizer import Recognizer
    from kikitori.types import Transcript
    from kikitori.workflows.transcribe import Done, Progress, Transcriber

MANY = 20  # recordings, of which errors and progress are told again at the end
LINE_BREAKS = r"[\t\n\v\f\r\x85\u2028\u2029]+"


class Format(StrEnum):
    """Transcript file formats."""

    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    json = "json"
    jsonl = "jsonl"
    ctm = "ctm"
    all = "all"


def transcribe(
    audio: Annotated[
        list[str], typer.Argument(help="Audio files and folders, and overrides such as decoding.max_labels=50.")
    ],
    model: AnyModel = None,
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
    decoder: Decoder = None,
    window: Window = WindowSize.padded,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Text that Whisper reads before each utterance: names, the topic.")
    ] = None,
    hotwords: Hotwords = None,
    on_runaway: Runaway = "ctc",
    on_no_speech: NoSpeech = "empty",
    engine: EngineOption = EngineName.local,
    workers: Workers = None,
    shard: ShardOption = None,
) -> None:
    """Transcribe recordings of any length: one line per file (path, tab, text), or files in a folder with -o.

    A folder among the arguments stands for all recordings below it. With -o, a run that was killed goes on when it is
    called again: recordings that are finished are not done anew.
    """
    with one_line_errors():
        files, overrides = split_overrides(audio)
        if not files:
            raise ConfigError("no audio file given", remedy="name at least one file")
        from kikitori.engine.pool import in_order
        from kikitori.io.recordings import find_recordings
        from kikitori.io.subtitles import CueOptions
        from kikitori.io.writers import FORMATS, SUBTITLES, render
        from kikitori.scorers.hotwords.phrases import read_hotwords
        from kikitori.search.guards import Guards
        from kikitori.workflows.sharing.shards import read_shard
        from kikitori.workflows.transcribe import Outputs, Transcribing, transcribe_into, transcripts

        recordings = find_recordings([Path(file) for file in files])
        phrases = () if hotwords is None else read_hotwords(hotwords)
        names = FORMATS if formats and Format.all in formats else [f.value for f in formats or []]
        if output is None and len(names) > 1:
            raise ConfigError("several formats are several files", where="-f", remedy="name their folder with -o")
        if output is None and names and len(recordings) > 1:
            raise ConfigError("-f prints one file", where="-f", remedy="name a folder for several with -o")
        share = read_shard(shard)
        guards = Guards(on_runaway, on_no_speech)

        def make(where: Device) -> "Recognizer":
            made = load_recognizer(model, decoding, overrides, where, dtype, adapter, language, window, decoder)
            return replace(made, guards=guards, prompt=prompt or "", hotwords=phrases)

        ours = {
            "--decoding": bool(decoding),
            "overrides": bool(overrides),
            "--adapter": adapter is not None,
            "--hotwords": hotwords is not None,
            "--prompt": prompt is not None,
            "--decoder": decoder is not None,
            "--window": window is not WindowSize.padded,
            "--word-times": bool(word_times),
            "--engine": engine is not EngineName.local,
        }

        @contextmanager
        def shared() -> "Iterator[tuple[Transcriber, Pool | None]]":
            baseline = baseline_of(model, device, dtype, language, ours)
            if baseline is not None:
                with together():
                    yield baseline, None
                return
            with recognizers(make, engine, workers, device) as (recognizer, pool):
                yield Transcribing(recognizer), pool

        with shared() as (transcriber, pool):
            if output is not None:
                make_folder(output)
            subtitles = any(name in SUBTITLES for name in names)
            timed = ("ctm" in names or (subtitles and transcriber.has_word_times)) if word_times is None else word_times
            if subtitles and not timed:
                if highlight_words:
                    raise ConfigError("no words without their times", where="--highlight-words", remedy="leave it out")
                print(
                    "kikitori: times of subtitles within an utterance are estimated, without a CTC head",
                    file=sys.stderr,
                )
            cues = CueOptions(max_line_width, max_line_count, highlight_words)
            if output is not None:
                outputs = Outputs(output, names or ["txt"], cues)
                results = transcribe_into(
                    transcriber, recordings, outputs, batch_size=batch_size, word_times=timed, pool=pool, shard=share
                )
                if not _follow(share.of(recordings), results):
                    raise typer.Exit(SOME_FAILED)
                return
            failed = 0
            paths = [recording.audio for recording in share.of(recordings)]
            texts = in_order(transcripts(transcriber, paths, batch_size=batch_size, word_times=timed, pool=pool))
            for path, result in zip(paths, texts, strict=True):
                if isinstance(result, KikitoriError):
                    failed += 1
                    complain(result)
                    continue
                _doubt(path, result)
                if names:
                    written = transcriber.language
                    print(render(result, names[0], audio=str(path), language=written, cues=cues), end="", flush=True)
                else:
                    print(f"{path}\t{' '.join(re.split(LINE_BREAKS, result.text))}", flush=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _doubt(path: Path, transcript: "Transcript") -> None:
    """Says what is doubtful about a transcript."""
    for flag in transcript.flags:
        why = f" ({transcript.reasons[flag]})" if flag in transcript.reasons else ""
        print(f"kikitori: {path}: {flag.replace('_', ' ')}{why}; check this transcript", file=sys.stderr)


def _follow(recordings: Sequence["Recording"], results: Iterator["Done"]) -> bool:
    """Says what becomes of recordings; returns whether all is well.

    Errors come at once, and of many recordings again at the end, where other lines do not hide them.
    """
    from kikitori.io.files import DiskFullError
    from kikitori.workflows.transcribe import Progress

    progress, errors = Progress(recordings), []
    with _shown(progress) as show:
        try:
            for done in results:
                if done.error is not None:
                    errors.append(done.error)
                    complain(done.error)
                elif done.transcript is not None:
                    _doubt(done.recording.audio, done.transcript)
                progress.add(done)
                show()
        except DiskFullError as error:
            errors.append(error)
            complain(error)
    many = len(recordings) > MANY
    if many or progress.skipped:
        print(f"kikitori: {progress}", file=sys.stderr)
    if many and errors:
        print("kikitori: all errors:", file=sys.stderr)
        for each in errors:
            complain(each)
    return not errors


@contextmanager
def _shown(progress: "Progress") -> Iterator[Callable[[], None]]:
    """A bar on a terminal, elsewhere a line now and then; what it gives is called when there is progress."""
    if not sys.stderr.isatty():
        tell = now_and_then()
        yield lambda: tell(lambda: str(progress))
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = BarColumn(), TextColumn("{task.description}")
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(str(progress), total=1.0)
        yield lambda: bars.update(bar, completed=progress.fraction, description=str(progress))
