"""What commands share: options, exit statuses, errors of one line, folders for results."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kikitori.errors import ConfigError, DataError, KikitoriError, KikitoriWarning, TrainingError
from kikitori.io.progress import notes_as_lines
from kikitori.types import DecoderName

if TYPE_CHECKING:
    from kikitori.recognizer import Recognizer
    from kikitori.search.options import Decoding
    from kikitori.types import Utterance

SOME_FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Arithmetic of the networks."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class TextForm(StrEnum):
    """Forms of text."""

    own = "as_is"
    lower_case = "lower"
    plain = "en_plain"


class WindowSize(StrEnum):
    """What a Whisper decoder reads behind a recording."""

    padded = "padded"
    speech = "speech"


class Fillers(StrEnum):
    """What becomes of fillers in scoring."""

    keep = "keep"
    remove = "remove"


Model = Annotated[str | None, typer.Option("--model", help="Model folder or hub id; the bundled tiny-en by default.")]
Adapter = Annotated[
    Path | None, typer.Option("--adapter", help="Adapter folder to switch on, or the run of kikitori adapt.")
]
Search = Annotated[
    str | None,
    typer.Option(
        "--decoding",
        help="greedy, speculative, joint, lexicon, or another search of docs/decoding.md; or a YAML. The name of the "
        "search in the model's own decoding.yaml means that search with its settings there, any other name defaults.",
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as decoding.max_labels=50.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Utterances decoded together.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
DtypeOption = Annotated[
    Precision,
    typer.Option(
        "--dtype", help="float32, bfloat16 (may depend on the batch), or int8: Whisper's linear layers, on a CPU."
    ),
]
Data = Annotated[list[Path] | None, typer.Option("--data", help="JSONL manifest; may be repeated.")]
Split = Annotated[str | None, typer.Option(help="Rows of this split only.")]
Text = Annotated[
    list[Path] | None, typer.Option("--text", help="Text, one sentence a line, plain, .gz, .xz; may be repeated.")
]
MaxLines = Annotated[int, typer.Option("--max-lines", min=0, help="Lines of each text, evenly spread; 0 takes all.")]
TextFormOption = Annotated[
    TextForm, typer.Option("--text-form", help="Form that texts get first: as they are, lower case, plain English.")
]
SpokenTitles = Annotated[
    bool, typer.Option("--spoken-titles", help="Write Mr., Mrs. and Dr. of --text as they are spoken (English).")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]
FillersOption = Annotated[
    Fillers,
    typer.Option("--fillers", help="uh, um, えーと: as the normalizer has them, or left out of both texts before it."),
]
Folder = Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the results.")]
SafetensorsFile = Annotated[Path | None, typer.Option("-o", "--output", help="File, .safetensors.")]
RunFolder = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")]
Runaway = Annotated[
    Literal["ctc", "keep"],
    typer.Option("--on-runaway", help="Where the speech LLM loops or hallucinates: the CTC head's text, or its own."),
]
Language = Annotated[
    str | None, typer.Option("--language", help="Language spoken, such as en or ja; found out by default.")
]
Decoder = Annotated[
    DecoderName | None,
    typer.Option("--decoder", help="Which decoder of a model that has two; encoder_decoder by default."),
]
Window = Annotated[
    WindowSize,
    typer.Option("--window", help="What a Whisper decoder reads behind speech: silence up to 30 s, or half a second."),
]
Hotwords = Annotated[
    Path | None,
    typer.Option("--hotwords", help="File of names and terms, one a line, to prefer where the CTC head hears them."),
]
NoSpeech = Annotated[
    Literal["empty", "keep"],
    typer.Option("--on-no-speech", help="For silence and noise: no text, or whatever the search finds in them."),
]


def load_recognizer(
    model: str | None,
    decoding: str | None,
    overrides: Sequence[str],
    device: Device,
    dtype: Precision,
    adapter: Path | None,
    language: str | None = None,
    window: WindowSize = WindowSize.padded,
    decoder: DecoderName | None = None,
) -> "Recognizer":
    """A recogniser whose default search is the one that `--decoding` and the overrides name, or else its own.

    Raises:
        KikitoriError: A folder or an option is wrong.
    """
    from kikitori.io.extras import require
    from kikitori.loading import fetch_model, load
    from kikitori.search.options import asked_decoder, with_overrides

    if adapter is not None:
        require("peft", "adapters need", where=adapter)
    named = decoder or asked_decoder(decoding, overrides)
    chosen = search_for(Path(fetch_model(model, named)), decoding, overrides)
    with warnings_as_lines():
        recognizer = load(
            model,
            device=device.value,
            dtype=dtype.value,
            decoding=chosen,
            adapter=adapter,
            language=language,
            window=window.value,
            decoder=named,
        )
    # Which search a folder without a decoding.yaml gets depends on the model.
    return recognizer if chosen else replace(recognizer, decoding=with_overrides(recognizer.decoding, overrides))


def search_for(folder: Path | None, decoding: str | None, overrides: Sequence[str]) -> "Decoding | None":
    """The search that `--decoding` names, or else that of the model folder; None where neither is.

    Raises:
        KikitoriError: A file or an option is wrong.
    """
    from kikitori.loading import own_search
    from kikitori.search.defaults import named_search
    from kikitori.search.options import with_overrides

    if decoding is not None:
        return named_search(decoding, folder, overrides)
    own = None if folder is None else own_search(folder)
    return None if own is None else with_overrides(own, overrides)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files, and overrides such as `decoding.beam=8`: whatever has a = and is no existing file."""
    overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
    return [a for a in arguments if a not in overrides], overrides


def only_overrides(arguments: Sequence[str] | None, remedy: str = "name manifests with --data") -> list[str]:
    """The overrides of a command that takes no files as arguments.

    Raises:
        ConfigError: Something else is among them; the remedy says what to write.
    """
    others, overrides = split_overrides(arguments or [])
    if others:
        raise ConfigError("not an override", where=others[0], remedy=remedy)
    return overrides


def manifests(data: Sequence[Path] | None) -> Sequence[Path]:
    """What `--data` names.

    Raises:
        ConfigError: Nothing.
    """
    if not data:
        raise ConfigError("no manifest given", where="--data", remedy="name at least one")
    return data


def read_rows(data: Sequence[Path] | None, split: str | None) -> "list[Utterance]":
    """The rows of manifests, one after the other.

    Raises:
        ConfigError: A split of no manifest is asked for.
        DataError: A manifest cannot be read.
    """
    from kikitori.data.manifest import read_manifest

    if split and not data:
        raise ConfigError("a split of what", where="--split", remedy="name a manifest with --data")
    return [row for path in data or () for row in read_manifest(path, split=split).utterances]


def folder_for(what: str, output: Path | None) -> Path:
    """The folder that `-o` names for something.

    Raises:
        ConfigError: It names none.
    """
    if output is None:
        raise ConfigError("no folder given", where="-o", remedy=f"name the folder for {what}")
    return output


def make_folder(folder: Path) -> None:
    """Makes the folder for the results, so that a wrong one fails before the work and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise DataError(f"cannot be made ({error.strerror})", where=folder, remedy="choose another folder") from None
    if not writable:
        raise DataError("is not writable", where=folder, remedy="choose another folder")


def complain(error: KikitoriError) -> None:
    """An error as a line on standard error."""
    print(f"kikitori: {error}", file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Whatever goes wrong inside ends the command with one line and an exit status."""
    try:
        with warnings_as_lines(), notes_as_lines():
            yield
    except KikitoriError as error:
        complain(error)
        raise typer.Exit(SOME_FAILED if isinstance(error, TrainingError) else WRONG_CALL) from None
    except ModuleNotFoundError as error:
        from kikitori.io.extras import EXTRAS, missing

        if error.name not in EXTRAS:
            raise
        complain(missing(error.name, "this needs"))
        raise typer.Exit(WRONG_CALL) from None
    except BrokenPipeError:
        raise  # the reader of our output, such as `head`, has seen enough: typer ends quietly
    except OSError as error:
        complain(KikitoriError(error.strerror or str(error), where=error.filename))
        raise typer.Exit(WRONG_CALL) from None
    except KeyboardInterrupt:
        print("kikitori: interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def warnings_as_lines() -> Iterator[None]:
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
