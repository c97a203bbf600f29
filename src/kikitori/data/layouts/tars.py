"""Files in tars: nothing is unpacked, and no name of a member becomes a path."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.stored import Stored, held
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


def members(tar: Path) -> Iterator[tuple[str, Stored]]:
    """The plain files of a tar with their names, in its order; links and devices are passed over.

    Of a tar that is not compressed the headers alone are read.

    Raises:
        DataError: The tar is damaged or cut, or a file in it is larger than 2 GB.
    """
    try:
        plain = not _is_compressed(tar)
        with tarfile.open(tar, mode="r:" if plain else "r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > _MAX_BYTES:
                    raise DataError(f"{member.name[:80]} has {member.size} bytes", where=tar, remedy="split it")
                if plain and not member.issparse():
                    yield member.name, Stored(tar, member.offset_data, member.size)
                    continue
                content = archive.extractfile(member)
                yield member.name, held(tar, content.read() if content else b"")
            # Python takes a tar that ends behind a member, without the blocks of zeros, for a whole one.
            if plain and tar.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
                raise EOFError("its end mark is missing")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"is no whole tar ({reason})", where=tar, remedy="copy it again") from None


def audio_members(tar: Path) -> Iterator[tuple[str, Stored]]:
    """The members whose names end as those of audio files do.

    Raises:
        DataError: As `members`.
    """
    return ((name, data) for name, data in members(tar) if Path(name).suffix.lower() in ENDINGS)


def _is_compressed(tar: Path) -> bool:
    with tar.open("rb") as file:
        return file.read(3).startswith((b"\x1f\x8b", b"BZh", b"\xfd7z"))
