"""What becomes of audio that lies inside other files when a data set becomes a manifest: written out, or left there."""

import re
from collections import Counter
from pathlib import Path
from typing import Protocol

from kikitori.data.layouts.base import SourceRow
from kikitori.data.layouts.stored import Stored
from kikitori.errors import DataError
from kikitori.io.files import remove_left_overs, write_bytes
from kikitori.io.recordings import ENDINGS

MANIFEST = "manifest.jsonl"
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3", b"FORM": ".aiff"}
_MAX_NAME = 60  # characters, of up to four bytes; file systems take 255 bytes


class Keeper(Protocol):
    """What becomes of audio that is no file of its own."""

    written: int

    def keep(self, row: SourceRow) -> tuple[Path, Stored | None]:
        """The file that holds the audio of a row, and where it lies in it.

        Raises:
            DataError: It cannot be written, or cannot stay where it is.
        """
        ...


class InPlace:
    """It stays where it is, in a file that is not compressed."""

    written = 0

    def keep(self, row: SourceRow) -> tuple[Path, Stored | None]:
        """The file of a row, perhaps with the place in it.

        Raises:
            DataError: The file is compressed.
        """
        if row.data is not None and row.data.start is None:
            raise DataError(
                "is compressed, so that no audio file can be read out of it alone",
                where=row.data.file,
                remedy="decompress it, or write the audio out with kikitori data convert",
            )
        return (row.audio, None) if row.data is None else (row.data.file, row.data)


class AudioFolder:
    """The folder beside a manifest for its audio, made when the first is written; it belongs to that manifest alone."""

    def __init__(self, manifest: Path) -> None:
        own = manifest.name != MANIFEST
        self.path = manifest.with_name(f"{manifest.stem}_audio" if own else "audio")
        self.written = 0
        self._names, self._folders = Counter[str](), set[Path]()

    def keep(self, row: SourceRow) -> tuple[Path, None]:
        """The file of a row, written if need be."""
        return row.audio if row.data is None else self.write(row, row.data.read()), None

    def write(self, row: SourceRow, data: bytes) -> Path:
        """Writes the audio of a row, unless it is there; its name is that of the row, made safe.

        Raises:
            DataError: A file of this name holds other audio, or it cannot be written.
        """
        folder = self.path / _safe(row.split) if row.split else self.path
        if folder not in self._folders:
            remove_left_overs(folder)
            self._folders.add(folder)
        stem = f"{folder / _safe(row.utt_id)}"
        self._names[stem] += 1
        again = f"~{self._names[stem]}" if self._names[stem] > 1 else ""
        path = Path(f"{stem}{again}{_ending(row, data)}")
        if not path.exists():
            write_bytes(path, data)
            self.written += 1
        elif path.stat().st_size != len(data) or path.read_bytes() != data:
            raise DataError("holds other audio", where=path, remedy="delete that folder or choose another -o")
        return path


def _safe(name: str) -> str:
    """A name of others as that of a file: no separators, no leading dot, not too long."""
    plain = re.sub(r"[^\w.@+=-]+", "_", name).lstrip(".")
    return plain[-_MAX_NAME:].lstrip(".") or "_"


def _ending(row: SourceRow, data: bytes) -> str:
    named = row.audio.suffix.lower()
    return named if named in ENDINGS else next((end for mark, end in _MAGIC.items() if data.startswith(mark)), ".audio")
