"""N-grams as tables, and ARPA files of them."""

import gzip
import lzma
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import ConfigError, DataError, ModelError

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
MOST_ORDERS = 6
"""What KenLM reads as it is usually built."""
IMPOSSIBLE = -99.0
"""What ARPA files say of the beginning of a sentence, which is only ever a context."""


NO_UNKNOWN = -100.0
"""What KenLM takes for unknown words of a file that has none."""
BLANKS = " \t\r\n"
_BLANK = re.compile(r"[ \t]+")
_SIZE = re.compile(r"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NGrams:
    """The n-grams of one order, ascending by their words: first by the place of all words but the last.

    Attributes:
        prefixes: Where the first words stand among the n-grams of the order below, (n-grams,) int64; 0 in order 1.
        last: Number of the last word, (n-grams,) int32; in order 1 that is all words, and their ends.
        log10_probs: log10 p(last word | those before), (n-grams,); of the beginning of a sentence -99.
        log10_backoffs: log10 γ(n-gram), (n-grams,); 0 where nothing follows, and in the highest order.
    """

    prefixes: NDArray[np.int64]
    last: NDArray[np.int32]
    log10_probs: NDArray[np.float64]
    log10_backoffs: NDArray[np.float64]


def spelled(ngrams: Sequence[NGrams]) -> list[NDArray[np.int32]]:
    """All words of the n-grams of each order, (n-grams, order)."""
    found = [np.zeros((1, 0), np.int32)]
    for each in ngrams:
        found.append(np.concatenate([found[-1][each.prefixes], each.last[:, None]], axis=1))
    return found[1:]


def write_arpa(file: Path, ngrams: Sequence[NGrams], words: Sequence[str]) -> None:
    """Writes an ARPA file.

    Args:
        file: To write.
        ngrams: Of `kneser_ney.estimate`.
        words: The string of each word; none is empty or has a blank or the name of a sentence's ends.

    Raises:
        ConfigError: A word that the format cannot hold.
        DataError: The file cannot be written.
    """
    for word in words:
        if not writable(word) or word in (START, END):
            raise ConfigError(f"no word for an ARPA file: {word!r}", where=file)
    names = [*words, END, START]
    try:
        with file.open("w", encoding="utf-8", newline="\n") as out:
            out.write("\\data\\\n")
            out.writelines(f"ngram {n}={len(each.last)}\n" for n, each in enumerate(ngrams, start=1))
            for n, (each, numbers) in enumerate(zip(ngrams, spelled(ngrams), strict=True), start=1):
                out.write(f"\n\\{n}-grams:\n")
                for row, log_prob, backoff in zip(
                    numbers, each.log10_probs.tolist(), each.log10_backoffs.tolist(), strict=True
                ):
                    gram = " ".join([names[number] for number in row.tolist()])
                    # No -0: some readers take it for a positive number.
                    behind = "" if n == len(ngrams) else f"\t{backoff or 0.0:.7g}"
                    out.write(f"{log_prob or 0.0:.7g}\t{gram}{behind}\n")
            out.write("\n\\end\\\n")
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=file, remedy="check the path") from None


def read_arpa(file: Path) -> tuple[tuple[NGrams, ...], list[str]]:
    """Reads an ARPA file, plain, `.gz` or `.xz`.

    Returns:
        The n-grams by order, and the word of each unigram; `<unk>` is added where it is missing, at the -100 of
        KenLM.

    Raises:
        ModelError: It is missing or damaged, or an n-gram is without its beginning.
    """
    try:
        with _opened(file) as lines:
            return _read(_content(lines), file)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", where=file, remedy="check the path") from None
    except (UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ModelError(f"cannot be read as an ARPA file ({error})", where=file, remedy="copy it again") from None


def writable(word: str) -> bool:
    """Whether an ARPA file can hold a word."""
    return bool(word) and not set("\0\t\n\r ") & set(word)


def _opened(file: Path) -> IO[str]:
    match file.suffix:
        case ".xz":
            return lzma.open(file, "rt", encoding="utf-8", newline="\n")
        case ".gz":
            return gzip.open(file, "rt", encoding="utf-8", newline="\n")
        case _:
            return file.open(encoding="utf-8", newline="\n")


def _content(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip(BLANKS):
            yield number, stripped


def _read(lines: Iterator[tuple[int, str]], file: Path) -> tuple[tuple[NGrams, ...], list[str]]:
    sizes, heading = _sizes(lines, file)
    words: list[str] = []
    ids: dict[str, int] = {}
    found: list[NGrams] = []
    for n, size in enumerate(sizes, start=1):
        if heading != f"\\{n}-grams:":
            raise _bad(file, 0, f"\\{n}-grams: is missing")
        heading, rows, numbers = "", array("q"), array("d")
        for place, line in lines:
            if line.startswith("\\"):
                heading = line
                break
            log_prob, gram, backoff = _fields(line, n, file, place)
            if n == 1:
                if gram[0] in ids:
                    raise _bad(file, place, f"the word {gram[0]!r} comes twice")
                ids[gram[0]] = len(words)
                words += gram
            try:
                rows.extend([ids[word] for word in gram])
            except KeyError as error:
                raise _bad(file, place, f"{error} is no unigram") from None
            numbers.extend((log_prob, backoff))
        if len(numbers) != 2 * size:
            raise _bad(file, 0, f"{len(numbers) // 2} n-grams of order {n}, and {size} are announced")
        if n == 1 and UNKNOWN not in ids:
            words.append(UNKNOWN)
            rows.append(len(rows))
            numbers.extend((NO_UNKNOWN, 0.0))
        found.append(_tree(np.array(rows).reshape(-1, n), np.array(numbers).reshape(-1, 2), found, words, file))
    if heading != "\\end\\":
        raise _bad(file, 0, "\\end\\ is missing")
    if not {START, END} <= {*words}:
        raise _bad(file, 0, f"{START} and {END} are no words of it")
    return tuple(found), words


def _sizes(lines: Iterator[tuple[int, str]], file: Path) -> tuple[list[int], str]:
    """How many n-grams there are of each order, and the line behind."""
    if not any(line == "\\data\\" for _, line in lines):
        raise _bad(file, 0, "no ARPA file")
    sizes: list[int] = []
    for place, line in lines:
        counted = _SIZE.fullmatch(line)
        if counted is None:
            return sizes, line
        if int(counted[1]) != len(sizes) + 1 or len(sizes) == MOST_ORDERS:
            raise _bad(file, place, f"n-grams of order {counted[1]}")
        sizes.append(int(counted[2]))
    return sizes, ""


def _fields(line: str, n: int, file: Path, number: int) -> tuple[float, list[str], float]:
    fields = [field for field in _BLANK.split(line) if field]
    try:
        if len(fields) not in (n + 1, n + 2):
            raise ValueError
        log_prob, backoff = float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0
        if not (log_prob <= 0 and isfinite(log_prob) and isfinite(backoff)):
            raise ValueError
    except ValueError:
        raise _bad(file, number, f"no n-gram of order {n}") from None
    return log_prob, fields[1 : n + 1], backoff


def _tree(rows: Ints, numbers: Floats, below: Sequence[NGrams], words: Sequence[str], file: Path) -> NGrams:
    """N-grams in any order, (n-grams, n), with their two numbers, (n-grams, 2), as the next of the tables."""
    places = np.zeros(len(rows), np.int64)
    for each, column in zip(below, rows.T, strict=False):
        keys, wanted = each.prefixes * len(words) + each.last, places * len(words) + column
        places = np.searchsorted(keys, wanted)
        if (missing := np.append(keys, -1)[places] != wanted).any():
            gram = " ".join(words[number] for number in rows[missing.argmax()])
            raise _bad(file, 0, f"the n-gram {gram!r} is there without its beginning")
    keys = places * len(words) + rows[:, -1]
    order = np.argsort(keys)
    if (again := np.diff(keys[order]) == 0).any():
        gram = " ".join(words[number] for number in rows[order[again.argmax()]])
        raise _bad(file, 0, f"the n-gram {gram!r} comes twice")
    return NGrams(places[order], rows[order, -1].astype(np.int32), numbers[order, 0], numbers[order, 1])


def _bad(file: Path, line: int, what: str) -> ModelError:
    return ModelError(what, where=f"{file}:{line}" if line else file, remedy="make the file again, or copy it again")
