"""Files inside other files, such as the members of a tar."""

from dataclasses import dataclass
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.files import read_range


@dataclass(frozen=True)
class Stored:
    """A file inside another, which is read when it is asked for.

    Attributes:
        file: The other file.
        start: Its first byte there; None where it does not lie there as it is.
        size: Its bytes.
        held: All of it, where it can only be read on the way.
    """

    file: Path
    start: int | None
    size: int
    held: bytes | None = None

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            DataError: The other file is cut or gone.
        """
        if self.held is not None or self.start is None:
            return self.held or b""
        try:
            return read_range(self.file, self.start, self.size)
        except (OSError, EOFError) as error:
            raise DataError(f"cannot be read ({error})", where=self.file, remedy="copy it again") from None


def held(file: Path, data: bytes) -> Stored:
    """A file that was read on the way."""
    return Stored(file, None, len(data), data)
