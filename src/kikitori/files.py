"""Writing text files so that a reader never sees half of one."""

import contextlib
import uuid
from pathlib import Path

from kikitori.errors import DataError


def write_text(path: Path, content: str) -> None:
    """Writes a file under a temporary name and renames it into place; makes its folder if need be.

    Raises:
        DataError: The folder or the disk refuses.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is not UTF-8 reaches us with surrogates: written as \udcxx, JSON's own escape.
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path, remedy="choose another folder") from error
    finally:
        with contextlib.suppress(OSError):  # already renamed, or its folder does not exist
            temporary.unlink()
