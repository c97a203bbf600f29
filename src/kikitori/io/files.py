"""Writing files and folders so that a reader never sees half of one, and no two writers share one."""

import contextlib
import errno
import gzip
import lzma
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock, Timeout

from kikitori.errors import DataError, counted

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".aiff")
LOCK = ".lock"
"""File of a folder whose lock `locked` holds; `.lock.NAME` is that of a part."""
LOOK_S = 5.0
"""How long to wait for a lock that others hold for a look alone."""
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Names of files that are being written."""


class DiskFullError(DataError):
    """There is no room left to write to, so that all further files would fail as well."""


def open_compressed(path: Path) -> BinaryIO:
    """A file to read bytes of, which are decompressed if its name ends with `.xz` or `.gz`."""
    match path.suffix:
        case ".xz":
            return cast(BinaryIO, lzma.open(path))
        case ".gz":
            return cast(BinaryIO, gzip.open(path))
        case _:
            return path.open("rb")


def describe_folder(path: Path) -> tuple[str, str]:
    """What a folder is that was given where a file is due, and what to give instead."""
    names = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if "wav.scp" in names:
        return "is a folder of Kaldi's", "make a manifest of it with kikitori data convert"
    if {"dataset_info.json", "dataset_dict.json", "state.json"} & names or any(n.endswith(".arrow") for n in names):
        return "is a dataset of Hugging Face", "make a manifest of it with kikitori data convert"
    if "config.json" in names and {"model.safetensors", "tokenizer.json"} & names:
        return "is a model folder", "name it with --model"
    if sounds := sorted(n for n in names if n.lower().endswith(SOUNDS)):
        return (
            f"is a folder with {counted(len(sounds), 'recording')}",
            f"name the files, such as {path / ('*' + Path(sounds[0]).suffix)}",
        )
    if tables := sorted(n for n in names if n.endswith(".jsonl")):
        return "is a folder", f"name the manifest in it, such as {path / tables[0]}"
    return "is a folder", "name a file in it"


def write_text(path: Path, content: str) -> None:
    """Writes a text file in UTF-8, whole or not at all; makes its folder if need be.

    Raises:
        DataError: The folder or the disk refuses.
    """
    # A file name that is not UTF-8 reaches us with surrogates: written as \udcxx, JSON's own escape.
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def read_range(path: Path, start: int, size: int) -> bytes:
    """Some bytes of a file.

    Raises:
        OSError: It cannot be read.
        EOFError: It ends before them.
    """
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise EOFError(f"it ends at byte {start + len(content)}, before byte {start + size}")
    return content


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it into place; makes its folder if need be.

    Raises:
        DataError: The folder or the disk refuses.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # already renamed, or its folder does not exist
            temporary.unlink()


def append_text(path: Path, content: str) -> None:
    """Writes on at the end of a text file in UTF-8.

    Raises:
        DataError: The folder or the disk refuses.
    """
    try:
        with path.open("a", encoding="utf-8") as out:
            out.write(content)
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> DataError:
    """What a system's error in writing a file means to the user."""
    what = f"cannot be written: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(what, where=path, remedy="make room and run the same command again")
    return DataError(what, where=path, remedy="choose another folder")


def remove_left_overs(folder: Path) -> None:
    """Removes half files that `write_bytes` left in a folder when its process was killed; nobody may write there."""
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if TEMPORARY.fullmatch(file.name):
                file.unlink()


def open_weights(folder: Path) -> None:
    """Lets whoever may read a folder read the weights in it, which safetensors writes for their owner alone.

    Raises:
        OSError: The folder is not ours.
    """
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill; it takes the place of `path` at the end, unless something goes wrong inside."""
    staging, replaced = path.with_name(f".{path.name}.staging"), path.with_name(f".{path.name}.replaced")
    for left_over in (staging, replaced):
        shutil.rmtree(left_over, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        open_weights(staging)
        if path.exists():
            path.rename(replaced)
        staging.rename(path)
    finally:
        for left_over in (staging, replaced):
            shutil.rmtree(left_over, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, part: str = "") -> Iterator[None]:
    """Holds a folder, or a part of what is written there, for one writer, by a lock on the file `.lock` in it.

    Who holds the folder is alone there; parts of other names may be held at the same time. The lock is the system's: it
    ends with the process, however that ends. The files stay.

    Raises:
        DataError: Another process holds it.
    """
    try:
        with FileLock(folder / f"{LOCK}{part}", blocking=False):
            # Each takes its own lock before it looks at others, so that of two that meet one at least gives way.
            for other in [folder / LOCK] if part else sorted(folder.glob(f"{LOCK}.*")):
                with FileLock(other, timeout=LOOK_S):
                    pass
            yield
    except Timeout:
        raise DataError(
            "another run is writing to this folder", where=folder, remedy="wait for it or choose another"
        ) from None
