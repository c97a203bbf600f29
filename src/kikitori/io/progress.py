"""How far something is, and what takes long: a bar on a terminal, plain lines elsewhere, both on standard error."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

EVERY_S = 60.0
"""Between two lines of progress where there is no terminal."""
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress in something, of so much in all; what it gives is called with how much more is done."""
_notes = logging.getLogger("kikitori.notes")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then elsewhere: a `Bar`."""
    if not sys.stderr.isatty():
        counted, tell = 0, now_and_then()

        def count(done: int) -> None:
            nonlocal counted
            counted += done
            tell(lambda: f"{what}: {counted} of {total}")

        yield count
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


@contextmanager
def no_bar(_: str, __: int) -> Iterator[Callable[[int], None]]:
    """Shows nothing: a `Bar`."""
    yield lambda _: None


def now_and_then(now: Callable[[], float] = time.monotonic) -> Callable[[Callable[[], str]], None]:
    """Notes a line if the last is `EVERY_S` ago; the first time counts from now on."""
    told = now()

    def tell(line: Callable[[], str]) -> None:
        nonlocal told
        if now() - told >= EVERY_S:
            told = now()
            note(line())

    return tell


def note(line: str) -> None:
    """Says why nothing is heard for a while; in a command alone, where `notes_as_lines`."""
    _notes.info(line)


@contextmanager
def notes_as_lines() -> Iterator[None]:
    """Inside, notes are lines on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("kikitori: %(message)s"))
    level, passed_on = _notes.level, _notes.propagate
    _notes.addHandler(handler)
    _notes.setLevel(logging.INFO)
    _notes.propagate = False
    try:
        yield
    finally:
        _notes.removeHandler(handler)
        _notes.setLevel(level)
        _notes.propagate = passed_on
