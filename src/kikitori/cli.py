"""The command line: `kikitori transcribe | evaluate | rescore | perplexity | train | adapt | merge | prior | ...`.

Heavy libraries are imported by the commands that use them. Exit status: 0 all done, 1 some files failed (the others
are done), 2 the call itself is wrong. Whatever goes wrong is one line on standard error.
"""

import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kikitori import __version__
from kikitori.errors import ConfigError, DataError, KikitoriError, KikitoriWarning, TrainingError

if TYPE_CHECKING:
    from kikitori.decoding.options import Decoding
    from kikitori.recognizer import Recognizer
    from kikitori.train.recipe import Recipe

SOME_FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130
KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""On the CPU oneDNN keeps kernels with their buffers for the last 1,024 shapes, and speech comes in ever new shapes: a
process that trains in bfloat16 would grow by gigabytes."""
LINE_BREAKS = r"[\t\n\v\f\r\x85\u2028\u2029]+"
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=.*", re.DOTALL)

app = typer.Typer(
    name="kikitori",
    help="Speech recognition with pre-trained speech encoders and large language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage errors are one line, without a box
)
convert = typer.Typer(
    name="convert",
    help="Make a model folder from a published model in another layout.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(convert)
bench = typer.Typer(
    name="bench",
    help="Time our searches beside others, in one process, taking turns.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench)


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Arithmetic of the networks."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Estimate(StrEnum):
    """How a label prior is estimated."""

    softmax = "softmax"
    counts = "counts"


class TextForm(StrEnum):
    """Forms of text."""

    own = "as_is"
    lower_case = "lower"
    plain = "en_plain"


class Format(StrEnum):
    """Transcript file formats."""

    txt = "txt"
    json = "json"
    jsonl = "jsonl"
    all = "all"


Model = Annotated[str | None, typer.Option("--model", help="Model folder or hub id; the bundled mini-en by default.")]
Search = Annotated[
    str | None,
    typer.Option("--decoding", help="greedy, sampling, ctc_greedy, ctc_beam, shallow_fusion, rescoring, or a YAML."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Recordings decoded together.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
DtypeOption = Annotated[
    Precision, typer.Option("--dtype", help="float32 gives the same text for every batch size; bfloat16 may not.")
]
Adapter = Annotated[
    Path | None, typer.Option("--adapter", help="Adapter folder to switch on, or the run of kikitori adapt.")
]
SplitOption = Annotated[str | None, typer.Option(help="Rows of this split only.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"kikitori {__version__}")
        raise typer.Exit


@app.command()
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
) -> None:
    """Transcribe audio files: one line per file (path, tab, text), or files in a folder with -o."""
    with _one_line_errors():
        files, overrides = _split_overrides(audio)
        if not files:
            raise ConfigError("no audio file given", remedy="name at least one file")
        if formats and output is None:
            raise ConfigError("-f writes files", where="-f", remedy="name their folder with -o")
        recognizer, options = _load(model, decoding, overrides, device, dtype, adapter)
        from kikitori.writers import FORMATS, unique_stems, write_transcript

        if output is not None:
            _make_folder(output)
        names = FORMATS if formats and Format.all in formats else [f.value for f in formats or [Format.txt]]
        language = recognizer.loaded.trained_on.language
        failed = 0
        paths = [Path(file) for file in files]
        results = recognizer.try_transcribe_many(paths, batch_size=batch_size, decoding=options)
        with _progress_bar("transcribing", 0 if output is None else len(paths)) as progress:
            for path, stem, result in zip(paths, unique_stems(paths), results, strict=True):
                try:
                    if isinstance(result, KikitoriError):
                        raise result
                    for flag in result.flags:
                        print(f"kikitori: {path}: {flag.replace('_', ' ')}; check this transcript", file=sys.stderr)
                    if output is None:
                        print(f"{path}\t{' '.join(re.split(LINE_BREAKS, result.text))}", flush=True)
                    else:
                        write_transcript(result, path, output, names, stem=stem, language=language)
                except KikitoriError as error:
                    failed += 1
                    _complain(error)
                progress(1)
    if failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
def evaluate(
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as decoding.max_labels=50.")] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="JSONL manifest; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the report.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Rows of this split only.")] = None,
    model: Model = None,
    decoding: Search = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Precision.float32,
    adapter: Adapter = None,
) -> None:
    """Measure a recogniser on transcribed speech: WER, CER, RTFx, and a report in a folder."""
    with _one_line_errors():
        extra, settings = _split_overrides(overrides or [])
        if extra:
            raise ConfigError("not an override", where=extra[0], remedy="name manifests with --data")
        if not data:
            raise ConfigError("no manifest given", where="--data", remedy="name at least one")
        if output is None:
            raise ConfigError("no folder given", where="-o", remedy="name the folder for the report")
        from kikitori.data.manifest import read_manifest

        sets = {str(path): read_manifest(path, split=split).utterances for path in data}
        recognizer, options = _load(model, decoding, settings, device, dtype, adapter)
        _make_folder(output)
        from kikitori import evaluate as evaluation
        from kikitori.scoring.report import build_report, format_table, write_report

        with _progress_bar("evaluating", sum(map(len, sets.values()))) as progress:
            predictions = evaluation.evaluate(
                recognizer, sets, decoding=options, batch_size=batch_size, progress=progress
            )
        report = build_report(
            predictions,
            normalizer=None,
            decoding=options.search,
            model=recognizer.name,
            versions=evaluation.versions(),
        )
        write_report(output, report, predictions)
        print(format_table(report), flush=True)
        failures = [p for rows in predictions.values() for p in rows if p.error is not None]
        for prediction in failures:
            print(f"kikitori: {prediction.error}", file=sys.stderr)
    if failures:
        raise typer.Exit(SOME_FAILED)


@app.command()
def rescore(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl of an evaluation with n-best lists.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides such as decoding.lms.lm.path=FOLDER decoding.scales.lm=0.3.")
    ] = None,
    decoding: Annotated[str, typer.Option("--decoding", help="A YAML file with search: rescoring.")] = "rescoring",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the report.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Recogniser that wrote the labels; without it, texts count.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Put the n-best lists of an evaluation in another order, by language models and scales."""
    with _one_line_errors():
        extra, settings = _split_overrides(overrides or [])
        if extra:
            raise ConfigError("not an override", where=extra[0], remedy="write decoding.name=value")
        if output is None:
            raise ConfigError("no folder given", where="-o", remedy="name the folder for the report")
        from kikitori.decoding.options import RescoringSearch, load_decoding

        options = load_decoding(decoding, settings)
        if not isinstance(options, RescoringSearch):
            raise ConfigError(f"'{options.search}' rescores nothing", where=decoding, remedy="use search: rescoring")
        from kikitori import rescore as rescoring
        from kikitori.evaluate import versions
        from kikitori.recognizer import torch_device
        from kikitori.scoring.predictions import read_predictions
        from kikitori.scoring.report import build_report, format_table, write_report
        from kikitori.text.units import load_units

        sets = read_predictions(predictions)
        _make_folder(output)
        units = None if model is None else load_units(model)
        done = rescoring.rescore(sets, options, units, torch_device(device.value))
        name = str(predictions)
        report = build_report(done.sets, normalizer=None, decoding=options.search, model=name, versions=versions())
        write_report(output, report, done.sets)
        if done.nodes:
            ratio = f"{done.labels / done.nodes:.2f} times fewer"
            print(f"kikitori: {done.labels} labels scored as {done.nodes}, {ratio}", file=sys.stderr)
        print(format_table(report), flush=True)


@app.command()
def perplexity(
    model: Annotated[str | None, typer.Option("--model", help="Language model, or that of a speech LLM.")] = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text, one sentence a line, plain, .gz, .xz; may be repeated.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest whose transcripts are text.")] = None,
    split: SplitOption = None,
    text_form: Annotated[
        TextForm, typer.Option("--text-form", help="Form that the text gets first, the same for models to compare.")
    ] = TextForm.own,
    max_lines: Annotated[int, typer.Option("--max-lines", min=0, help="Lines of each file, evenly spread.")] = 0,
    device: DeviceOption = Device.auto,
) -> None:
    """Perplexity of a language model on text: per token, per word and per character."""
    with _one_line_errors():
        if model is None:
            raise ConfigError("no language model given", where="--model", remedy="name its folder")
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        from kikitori.data.manifest import read_manifest
        from kikitori.data.text import read_lines
        from kikitori.decoding.language_model import load_language_model
        from kikitori.decoding.options import LMOptions
        from kikitori.recognizer import torch_device
        from kikitori.scoring.perplexity import format_perplexity
        from kikitori.scoring.perplexity import perplexity as measure

        lines = [(f"{path}", line) for path in text or () for line in read_lines(path, max_lines=max_lines)]
        for path in data or ():
            rows = read_manifest(path, split=split).utterances
            lines += [(f"{path}: {row.utt_id}", row.text) for row in rows if row.text]
        with _warnings_as_lines():
            lm = load_language_model(LMOptions(model, text_form.value), torch_device(device.value))
        with _progress_bar("scoring", len(lines)) as progress:
            found = measure(lm, lines, progress)
        print(format_perplexity(found), flush=True)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as run.epochs=10.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="With --resume: weights and position alone, the rest afresh.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = False,
) -> None:
    """Train what a recipe describes."""
    with _one_line_errors():
        for override in overrides or []:
            if "=" not in override:
                raise ConfigError("not an override", where=override, remedy="write section.key=value")
        from kikitori.train import run
        from kikitori.train.recipe import load_recipe

        if dry_run:
            for line in run.dry_run(recipe, overrides or []):
                print(line)
        elif output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one, or use --dry-run")
        else:
            loaded = load_recipe(recipe, overrides or [])
            if loaded.task == "adaptation":
                _adapt(loaded, output, resume=resume, weights_only=weights_only)
            else:
                run.train_recipe(loaded, output, resume=resume, weights_only=weights_only)


@app.command()
def adapt(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides such as lora.rank=8 or run.epochs=3.")
    ] = None,
    model: Model = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest to adapt to; may be repeated.")] = None,
    split: SplitOption = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text to adapt to instead, plain, .gz, .xz.")
    ] = None,
    dev: Annotated[
        list[Path] | None, typer.Option("--dev", help="New domain's manifest, to choose and report.")
    ] = None,
    dev_split: SplitOption = None,
    replay: Annotated[list[Path] | None, typer.Option("--replay", help="Old domain's manifest, to mix in.")] = None,
    replay_split: SplitOption = None,
    source: Annotated[list[Path] | None, typer.Option("--source", help="Old domain's manifest, to report.")] = None,
    source_split: SplitOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
) -> None:
    """Adapt a recogniser to a domain: an adapter, and what it gains and costs."""
    with _one_line_errors():
        extra, settings = _split_overrides(overrides or [])
        if extra:
            raise ConfigError("not an override", where=extra[0], remedy="name manifests with --data")
        if output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one")
        from kikitori import adapt as adaptation
        from kikitori.recognizer import BUNDLED

        rows = adaptation.Rows
        domain = adaptation.Domain(
            data=rows(data or (), split),
            text=text or (),
            dev=rows(dev or (), dev_split),
            replay=rows(replay or (), replay_split),
            source=rows(source or (), source_split),
        )
        recipe = adaptation.adaptation_recipe(model or str(BUNDLED), domain, settings)
        _adapt(recipe, output, resume=resume)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder, or the run of kikitori adapt.")],
    model: Model = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the recogniser.")] = None,
) -> None:
    """Write a recogniser and its adapter as one plain recogniser."""
    with _one_line_errors(), _warnings_as_lines():
        if output is None:
            raise ConfigError("no folder given", where="-o", remedy="name the folder for the recogniser")
        from kikitori.model.adapter_folder import merge_adapter
        from kikitori.recognizer import BUNDLED

        merge_adapter(model or BUNDLED, adapter, output)
        print(f"{output}", flush=True)


@app.command()
def prior(
    data: Annotated[list[Path] | None, typer.Option("--data", help="JSONL manifest; may be repeated.")] = None,
    split: SplitOption = None,
    model: Model = None,
    by: Annotated[
        Estimate, typer.Option("--by", help="softmax: what the CTC head gives on average; counts: of transcripts.")
    ] = Estimate.softmax,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File, .safetensors.")] = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
) -> None:
    """Estimate how probable each label is by itself, for fusion with a language model."""
    with _one_line_errors():
        if not data:
            raise ConfigError("no manifest given", where="--data", remedy="name at least one")
        if output is None or output.suffix != ".safetensors":
            raise ConfigError("no file for the prior", where="-o", remedy="name one, such as prior.safetensors")
        from kikitori.data.manifest import read_manifest
        from kikitori.decoding.prior import save_prior
        from kikitori.prior import speech_prior, text_prior
        from kikitori.recognizer import load

        rows = [row for path in data for row in read_manifest(path, split=split).utterances]
        with _warnings_as_lines():
            recognizer = load(model, device=device.value)
        _make_folder(output.parent)
        if by == Estimate.counts:
            save_prior(output, text_prior(recognizer, rows))
        else:
            with _progress_bar("listening", len(rows)) as progress:
                save_prior(output, speech_prior(recognizer, rows, batch_size=batch_size, progress=progress))
        print(output, flush=True)


@convert.command("nue-asr")
def convert_nue_asr(
    source: Annotated[str, typer.Argument(help="Folder in the layout of rinna/nue-asr, or that hub id.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
) -> None:
    """Convert rinna/nue-asr; its pickled weights are read too, as tensors alone."""
    with _one_line_errors():
        if output is None:
            raise ConfigError("no folder given", where="-o", remedy="name the folder for the model")
        from kikitori.model import convert as conversion

        conversion.convert_nue_asr(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)


@bench.command("combination")
def bench_combination(
    rounds: Annotated[int, typer.Option("--rounds", min=5, help="Runs of each; the median counts.")] = 5,
    small: Annotated[bool, typer.Option("--small", help="The smallest inputs only.")] = False,
) -> None:
    """CTC beam search and what feeds it against other packages that are installed; rescoring against transformers."""
    with _one_line_errors():
        from kikitori.bench.combination import combination, missing_peers, small_combination
        from kikitori.bench.timing import format_rows

        for package in missing_peers():
            print(f"kikitori: {package} is not installed, so it is left out", file=sys.stderr)
        print(format_rows(list(small_combination(rounds) if small else combination(rounds))))


def main() -> None:
    """Entry point of the `kikitori` command."""
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, "64")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Scripts get one encoding everywhere, and file names that are not text come out as they came in.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        _complain(KikitoriError(f"unexpected {where}: {error}", remedy="set PYTHONDEVMODE=1 to see the traceback"))
        sys.exit(SOME_FAILED)


def _adapt(recipe: "Recipe", output: Path, *, resume: bool, weights_only: bool = False) -> None:
    from kikitori import adapt as adaptation

    with _warnings_as_lines():
        report = adaptation.adapt(recipe, output, resume=resume, weights_only=weights_only)
    if report is not None:
        print(adaptation.format_report(report), flush=True)


def _load(
    model: str | None,
    decoding: str | None,
    overrides: Sequence[str],
    device: Device,
    dtype: Precision,
    adapter: Path | None,
) -> "tuple[Recognizer, Decoding]":
    from kikitori.decoding.options import check_overrides, load_decoding, with_overrides
    from kikitori.recognizer import load

    # A wrong option should not cost the loading of a model.
    check_overrides(overrides)
    chosen = None if decoding is None else load_decoding(decoding, overrides)
    with _warnings_as_lines():
        recognizer = load(model, device=device.value, dtype=dtype.value, decoding=chosen, adapter=adapter)
    return recognizer, chosen or with_overrides(recognizer.decoding, overrides)


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files, and overrides: `name.name=value` that is no existing file."""
    overrides = [a for a in arguments if _OVERRIDE.fullmatch(a) and not Path(a).exists()]
    return [a for a in arguments if a not in overrides], overrides


def _make_folder(folder: Path) -> None:
    """Makes the folder for the results, so that a wrong one fails before the work and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise DataError(f"cannot be made ({error.strerror})", where=folder, remedy="choose another folder") from None
    if not writable:
        raise DataError("is not writable", where=folder, remedy="choose another folder")


def _complain(error: KikitoriError) -> None:
    print(f"kikitori: {error}", file=sys.stderr)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except KikitoriError as error:
        _complain(error)
        raise typer.Exit(SOME_FAILED if isinstance(error, TrainingError) else WRONG_CALL) from None
    except BrokenPipeError:
        raise  # the reader of our output, such as `head`, has seen enough: typer ends quietly
    except OSError as error:
        _complain(KikitoriError(error.strerror or str(error), where=error.filename))
        raise typer.Exit(WRONG_CALL) from None
    except KeyboardInterrupt:
        print("kikitori: interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Our own warnings inside are lines like our errors; others stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", KikitoriWarning)
        show = warnings.showwarning

        def line(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, KikitoriWarning):
                print(f"kikitori: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = line
        yield


@contextmanager
def _progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    if not total or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
