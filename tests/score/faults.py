"""R3: a disk that refuses at any point of a save leaves the state before (or the new one, whole) and a clear error."""

import errno
import io
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from kikitori.errors import TrainingError
from kikitori.train.loop import checkpoint
from kikitori.train.loop.checkpoint import Checkpoint, find_damage, load_newest, save_checkpoint
from tests.score.row import Row

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
CALLS = ((os, "mkdir"), (os, "open"), (os, "fsync"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (io, "open"))
KEEP = 1


def count_faults(root: Path, *, every: int = 1) -> Row:
    """Refuses each disk operation of a save in turn, with each error; then caps file sizes in the kernel."""
    kept = tries = 0
    points = {}
    for name, step in (("the next step", 3), ("the same step again", 2)):
        folder = root / "count"
        _prepare(folder)
        with _refusing(None, 0) as calls:
            save_checkpoint(folder, step, content(step), keep=KEEP)
        points[name] = len(calls)
        cases = [(point, error) for point in range(len(calls)) for error in ERRORS]
        for point, error in cases[::every]:
            tries += 1
            kept += _holds(root / "case", step, lambda p=point, e=error: _refusing(p, e))
        shutil.rmtree(folder)
    sizes = range(0, 4200, 100)
    for size in sizes[::every]:
        tries += 1
        kept += _holds(root / "case", 3, lambda s=size: _capped(s))
    return Row(
        "R3",
        "a write that fails anywhere in a save gives one clear error and leaves a sound checkpoint, old or new",
        kept,
        tries,
        (
            f"disk operations in a save: {points['the next step']}, or {points['the same step again']} when it replaces"
            " a checkpoint; each with ENOSPC, EIO, EACCES; "
            f"{len(sizes[::every])} file size limits set in the kernel",
        ),
    )


def content(step: int) -> Checkpoint:
    """A checkpoint that can be told from others."""
    tensors = {"model": {"w": torch.full((700,), float(step))}, "optimizer": {"w|step": torch.tensor(float(step))}}
    return Checkpoint(tensors, {"step": step})


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for step in (1, 2):
        save_checkpoint(folder, step, content(step), keep=2)


def _holds(folder: Path, step: int, trouble: Callable[[], Any]) -> bool:
    """Whether a save in trouble keeps the promise, and the next one, without trouble, works."""
    _prepare(folder)
    error = None
    try:
        with trouble():
            save_checkpoint(folder, step, content(step), keep=KEEP)
    except TrainingError as caught:
        error = str(caught)
    path, loaded, damaged = load_newest(folder)
    reached = loaded.state["step"]
    whole = torch.equal(loaded.tensors["model"]["w"], content(reached).tensors["model"]["w"])
    sound = not damaged and find_damage(path) is None and whole and reached in (2, step)
    told = reached == step if error is None else "\n" not in error and str(folder) in error
    save_checkpoint(folder, step, content(step), keep=KEEP)
    names = [path.name for path in folder.iterdir()]
    return sound and told and names == [f"checkpoint-{step:08d}"]


@contextmanager
def _refusing(point: int | None, error: int) -> Iterator[list[str]]:
    """Disk operations of the save, the `point`-th of which fails; gives their names as they come."""
    calls: list[str] = []
    real_open = io.open

    def counted(name: str, real: Callable[..., Any], before: Callable[..., None] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) - 1 == point:
                if before is not None:
                    before(*args, **kwargs)
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        return call

    def half_a_file(_: object, path: Path) -> None:
        with real_open(path, "wb") as out:
            out.write(b"\x40\0\0\0\0\0\0\0{")

    patches = [patch.object(owner, name, counted(name, getattr(owner, name))) for owner, name in CALLS]
    patches.append(patch.object(checkpoint, "save_file", counted("save_file", checkpoint.save_file, half_a_file)))
    for one in patches:
        one.start()
    try:
        yield calls
    finally:
        for one in reversed(patches):
            one.stop()


@contextmanager
def _capped(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: native code, too, gets a real error from its writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
