"""Files in tars, read from front to back: nothing is unpacked, and no name of a member becomes a path."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.audio import AudioLimits
from kikitori.io.recordings import ENDINGS

_MAX_BYTES = AudioLimits().max_bytes
_NAMES = (".tar", ".tar.gz", ".tgz")


def tars_below(folder: Path) -> list[Path]:
    """The tars of a folder and of those in it, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if is_tar(path))


def is_tar(path: Path) -> bool:
    """Whether a path is a file with the name of a tar."""
    return path.name.endswith(_NAMES) and path.is_file()


def members(tar: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the plain files of a tar, in its order; links and devices are passed over.

    Raises:
        DataError: The tar is damaged, or a file in it is larger than 2 GB.
    """
    try:
        with tarfile.open(tar, mode="r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > _MAX_BYTES:
                    raise DataError(f"{member.name[:80]} has {member.size} bytes", where=tar, remedy="split it")
                content = archive.extractfile(member)
                yield member.name, content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"is no whole tar ({reason})", where=tar, remedy="copy it again") from None


def audio_members(tar: Path) -> Iterator[tuple[str, bytes]]:
    """The members whose names end as those of audio files do.

    Raises:
        DataError: As `members`.
    """
    return ((name, data) for name, data in members(tar) if Path(name).suffix.lower() in ENDINGS)
