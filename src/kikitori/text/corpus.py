"""Text corpora: one sentence a line, plain or compressed, read lazily."""

import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.files import describe_folder, open_compressed
from kikitori.text.normalize import visible

SPOKEN_TITLES = {"Mr.": "mister", "Mrs.": "missus", "Dr.": "doctor", "Messrs.": "messieurs"}
_TITLE = re.compile(r"\b(?:Mrs?|Dr|Messrs)\.")


def read_lines(path: Path, *, max_lines: int = 0, encoding: str = "utf-8") -> Iterator[str]:
    """Non-empty lines of a UTF-8 text file (`.xz` and `.gz` are decompressed); with `max_lines` so many, evenly spread.

    Byte order marks and other characters that cannot be seen are left out.

    Raises:
        DataError: The file is missing or not UTF-8 text.
    """
    step = 1.0
    if max_lines:
        total = sum(1 for _ in _lines(path, encoding))
        step = max(1.0, total / max_lines)
    wanted = 0.0
    for number, line in enumerate(_lines(path, encoding)):
        if number >= wanted:
            wanted += step
            yield line


def common_words(texts: Iterable[str], *, min_count: int = 1, most: int | None = None) -> list[str]:
    """The words of texts that occur often enough, the most frequent first; equally frequent ones by alphabet."""
    counts = Counter(word for text in texts for word in text.split())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ordered[:most] if count >= min_count]


def speak_titles(text: str) -> str:
    """Writes English titles as they are spoken: `Mr. Crow` becomes `mister Crow`."""
    return _TITLE.sub(lambda match: SPOKEN_TITLES[match.group()], text)


def _lines(path: Path, encoding: str) -> Iterator[str]:
    if path.is_dir():
        found, remedy = describe_folder(path)
        raise DataError(f"is no text file: it {found}", where=path, remedy=remedy)
    if not path.is_file():
        raise DataError("no such text file", where=path, remedy="check the path, or data_root of a recipe")
    try:
        with io.TextIOWrapper(open_compressed(path), encoding=encoding) as lines:
            seen = (visible(line).strip() for line in lines)
            yield from (line for line in seen if line)
    except (UnicodeDecodeError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        what = f"cannot be read as UTF-8 text ({error})"
        raise DataError(what, where=path, remedy="save it as UTF-8, or copy it again") from None
