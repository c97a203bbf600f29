"""Lines and fields that NIST's files share: comments begin with `;;`, fields are separated by white space."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from kikitori.errors import DataError

REMEDY = "write the file as sclite reads it"
ALTERNATIVES = "{}"


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file with the place of each for errors, without comments and empty ones.

    Raises:
        DataError: The file cannot be read, or is no text in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and not line.startswith(";;"):
                    yield f"{path}:{number}", line.strip()
    except UnicodeDecodeError:
        raise DataError("not a UTF-8 text file", where=path, remedy="convert it to UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from None


def seconds(field: str, where: str) -> float:
    """A time of 0 or more.

    Raises:
        DataError: It is none.
    """
    try:
        value = float(field)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0.0):
        raise DataError(f"'{field[:40]}' is no time in seconds", where=where, remedy=REMEDY)
    return value


def plain(text: str, where: str) -> str:
    """A text without alternatives such as `{ a / b }`, in single spaces.

    Raises:
        DataError: It has some.
    """
    if any(bracket in text for bracket in ALTERNATIVES):
        raise DataError("alternatives in braces cannot be scored", where=where, remedy="leave one of them")
    return " ".join(text.split())


def one_field(name: str) -> str:
    """A name as one field: without white space and brackets, and never empty."""
    return "".join("_" if char.isspace() or char in "();" else char for char in name) or "_"
