"""What all commands share: options, exit statuses, errors of one line, folders for results, progress."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kikitori.errors import ConfigError, DataError, KikitoriError, KikitoriWarning, TrainingError

if TYPE_CHECKING:
    from kikitori.recognizer import Recognizer
    from kikitori.search.options import Decoding

SOME_FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=.*", re.DOTALL)


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Arithmetic of the networks."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class TextForm(StrEnum):
    """Forms of text."""

    own = "as_is"
    lower_case = "lower"
    plain = "en_plain"


Model = Annotated[str | None, typer.Option("--model", help="Model folder or hub id; the bundled mini-en by default.")]
Search = Annotated[
    str | None,
    typer.Option(
        "--decoding",
        help="greedy, speculative, joint, lexicon, or another search of docs/decoding.md; or a YAML. The name of the "
        "search in the model's own decoding.yaml means that search with its settings there, any other name defaults.",
    ),
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


def load_recognizer(
    model: str | None,
    decoding: str | None,
    overrides: Sequence[str],
    device: Device,
    dtype: Precision,
    adapter: Path | None,
) -> "tuple[Recognizer, Decoding]":
    """A recogniser and the search that `--decoding` and the overrides name; without them the recogniser's own.

    Raises:
        KikitoriError: A folder or an option is wrong.
    """
    from kikitori.recognizer import find_model, load
    from kikitori.search.options import check_overrides, with_overrides

    # A wrong option should not cost the loading of a model.
    check_overrides(overrides)
    chosen = search_for(Path(find_model(model)), decoding, overrides)
    with warnings_as_lines():
        recognizer = load(model, device=device.value, dtype=dtype.value, decoding=chosen, adapter=adapter)
    return recognizer, chosen or with_overrides(recognizer.decoding, overrides)


def search_for(folder: Path | None, decoding: str | None, overrides: Sequence[str]) -> "Decoding | None":
    """The search that `--decoding` names, or else that of the model folder; None where neither is.

    Raises:
        KikitoriError: A file or an option is wrong.
    """
    from kikitori.search.defaults import default_search, named_search
    from kikitori.search.options import with_overrides

    if decoding is not None:
        return named_search(decoding, folder, overrides)
    own = None if folder is None else default_search(folder)
    return None if own is None else with_overrides(own, overrides)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files, and overrides: `name.name=value` that is no existing file."""
    overrides = [a for a in arguments if _OVERRIDE.fullmatch(a) and not Path(a).exists()]
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
        yield
    except KikitoriError as error:
        complain(error)
        raise typer.Exit(SOME_FAILED if isinstance(error, TrainingError) else WRONG_CALL) from None
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


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called with how much more is done."""
    if not total or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
