"""The journal of a folder of transcripts: which recordings are finished, so that a run that was killed goes on.

A line of JSON for each recording, written and synced when all its files are in place. It counts as long as the
recording, the recogniser with its options, and the files are still those that it names, by their SHA-256. Several
processes that share the work have a journal each, and read those of the others when they begin.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import kikitori
from kikitori.io.files import disk_error
from kikitori.io.model_folder import search_files_digest
from kikitori.io.recordings import Recording
from kikitori.model.weights import weights_digest
from kikitori.recognizer import Recognizer

JOURNAL = ".journal"  # no name that a transcript can have


class Journal:
    """The journal of a folder, or of a part of the work, for one writer at a time (see `kikitori.io.files.locked`).

    A line that a crash has torn is dropped when the journal is opened, and of two lines of one name the later counts.

    Args:
        folder: Of the transcripts; exists.
        recipe: Digest of what decides the transcripts beside the recording.
        part: Ends the name of the journal that is written; all are read.

    Raises:
        DataError: The journal cannot be read or mended.
    """

    def __init__(self, folder: Path, recipe: str, part: str = "") -> None:
        self._folder, self._recipe, self._file = folder, recipe, folder / f"{JOURNAL}{part}"
        self._others = [
            _by_name(whole_lines(other))
            for other in sorted((folder / JOURNAL, *folder.glob(f"{JOURNAL}.*")))
            if other != self._file
        ]
        content = whole_lines(self._file, mend=True)
        self._size = len(content)
        self._lines = _by_name(content)

    def knows(self, recording: Recording, digest: str) -> bool:
        """Whether a recording with this digest is finished and its files are as they were written."""
        return any(
            self._finished(lines.get(recording.name), recording, digest) for lines in (self._lines, *self._others)
        )

    def _finished(self, line: dict[str, Any] | None, recording: Recording, digest: str) -> bool:
        if line is None or line != self._line(recording, digest, line.get("files")):
            return False
        files = line["files"]
        return isinstance(files, dict) and all(file_digest(self._folder / name) == files[name] for name in files)

    def add(self, recording: Recording, digest: str, files: Sequence[Path]) -> None:
        """Notes that a recording is finished, in one synced line.

        Raises:
            DataError: The disk refuses; the journal is as it was.
        """
        names = {file.relative_to(self._folder).as_posix(): file_digest(file) for file in files}
        line = self._line(recording, digest, names)
        self._size = append_line(self._file, json.dumps(line) + "\n", self._size)
        self._lines[recording.name] = line

    def _line(self, recording: Recording, digest: str, files: object) -> dict[str, Any]:
        return {
            "name": recording.name,
            "audio": str(recording.audio),
            "sha256": digest,
            "recipe": self._recipe,
            "files": files,
        }


def file_digest(file: Path) -> str | None:
    """SHA-256 of a regular file; None of what cannot be read."""
    try:
        if not file.is_file():
            return None
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None


def recognizer_recipe(recognizer: Recognizer) -> dict[str, Any]:
    """What decides the text of a recording beside the recording itself, guards and a prompt."""
    loaded, folder = recognizer.loaded, recognizer.folder
    return {
        "kikitori": kikitori.__version__,
        "weights": weights_digest(loaded.model),
        "partners": None if folder is None else search_files_digest(folder),
        "search": asdict(recognizer.decoding),
        "dtype": recognizer.dtype,
        "language": loaded.trained_on.language,
        "window": "padded" if recognizer.padded is None else "speech",
        "hotwords": recognizer.hotwords,
    }


def recipe_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of options by name."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def whole_lines(file: Path, *, mend: bool = False) -> bytes:
    """The content of a journal up to its last line break, nothing where there is none; `mend` cuts the file there.

    Raises:
        DataError: It cannot be read or mended.
    """
    try:
        content = file.read_bytes() if file.exists() else b""
        whole = content.rfind(b"\n") + 1
        if mend and whole < len(content):
            os.truncate(file, whole)
    except OSError as error:
        raise disk_error(file, error) from error
    return content[:whole]


def append_line(file: Path, line: str, size: int) -> int:
    """Adds a line to a journal of so many bytes, and syncs it; gives the new size.

    Raises:
        DataError: The disk refuses; the journal is as it was.
    """
    content = line.encode()
    try:
        with file.open("ab", buffering=0) as out:
            if out.write(content) < len(content):  # the rest of the disk was too small
                out.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(out.fileno())
    except OSError as error:
        raise disk_error(file, error) from error
    return size + len(content)


def _by_name(content: bytes) -> dict[object, dict[str, Any]]:
    return {line.get("name"): line for line in map(_parsed, content.splitlines()) if line is not None}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
