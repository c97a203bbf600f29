"""The journal of a folder of transcripts: which recordings are finished, so that a run that was killed goes on.

A line of JSON for each recording, written and synced when all its files are in place. It counts as long as the
recording, the recogniser with its options, and the files are still those that it names, by their SHA-256.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kikitori.io.files import disk_error
from kikitori.io.recordings import Recording

JOURNAL = ".journal"  # no name that a transcript can have


class Journal:
    """The journal of a folder, for one writer at a time (see `kikitori.io.files.locked`).

    A line that a crash has torn is dropped when the journal is opened, and of two lines of one name the later counts.

    Args:
        folder: Of the transcripts; exists.
        recipe: Digest of what decides the transcripts beside the recording.

    Raises:
        DataError: The journal cannot be read or mended.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder, self._recipe, self._file = folder, recipe, folder / JOURNAL
        try:
            content = self._file.read_bytes() if self._file.exists() else b""
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self._file, whole)
        except OSError as error:
            raise disk_error(self._file, error) from error
        self._size = whole
        lines = [line for line in map(_parsed, content[:whole].splitlines()) if line is not None]
        self._lines = {line.get("name"): line for line in lines}

    def knows(self, recording: Recording, digest: str) -> bool:
        """Whether a recording with this digest is finished and its files are as they were written."""
        line = self._lines.get(recording.name)
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
        content = (json.dumps(line) + "\n").encode()
        try:
            with self._file.open("ab", buffering=0) as out:
                if out.write(content) < len(content):  # the rest of the disk was too small
                    out.truncate(self._size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(out.fileno())
        except OSError as error:
            raise disk_error(self._file, error) from error
        self._size += len(content)
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


def recipe_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of options by name."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
