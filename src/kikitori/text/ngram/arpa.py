"""N-grams as tables, and ARPA files of them."""

import lzma
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import ConfigError, DataError, ModelError
from kikitori.io.files import open_compressed

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
OTHER_SPELLINGS = {
    UNKNOWN: ("<UNK>", "<Unk>", "<unknown>", "<UNKNOWN>", "<oov>", "<OOV>", "!!UNK", "[UNK]"),
    START: ("<S>", "!SENT_START", "!ENTER"),
    END: ("</S>", "!SENT_END", "!EXIT"),
}
"""How some writers call the special words: SRILM, Kaldi's recipes and OpenGrm `<UNK>`, Google `<S>`, HTK `!!UNK`."""
MOST_ORDERS = 6
"""Of the n-grams that are estimated: what KenLM reads as it is usually built."""
IMPOSSIBLE = -99.0
"""log10 probability of the beginning of a sentence, which is only ever a context."""
NO_UNKNOWN = -100.0
"""log10 probability of unknown words where a file has no `<unk>`, as in KenLM."""
ROUNDING = 1e-3
"""IRSTLM writes log-probabilities of certain words that are above 0 by rounding."""
_BLANKS = b" \t\r\n\v\f\0"
_SIZE = re.compile(rb"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NGrams:
    """The n-grams of one order, ascending by their words: first by the place of all words but the last.

    Attributes:
        prefixes: Where the first words stand among the n-grams of the order below, (n-grams,) int64; 0 in order 1.
        last: Number of the last word, (n-grams,) int32; in order 1 that is all words, and their ends.
        log10_probs: log10 p(last word | those before), (n-grams,); of the beginning of a sentence -99. NaN where a
            pruned ARPA file has n-grams that begin with this one, but not this one: it is backed off to.
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
    """Writes the n-grams of `kneser_ney.estimate` over some words as an ARPA file.

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
    """Reads an ARPA file, plain, `.gz` or `.xz`, as SRILM, KenLM, IRSTLM, OpenGrm and others write them.

    `<unk>`, `<s>` and `</s>` may have one of the `OTHER_SPELLINGS`. `<unk>` is added at a log10 probability of -100
    where it is missing. A file without `</s>` says nothing of where sentences end, so that the end costs nothing;
    without `<s>` sentences begin in the empty context. N-grams may be listed whose beginnings were pruned. Orders at
    the end that have no n-grams are dropped. Returns the n-grams by order, and the word of each unigram.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        with open_compressed(file) as lines:
            return _read(_content(lines, file), file)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", where=file, remedy="check the path") from None
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise ModelError(f"cannot be read as an ARPA file ({error})", where=file, remedy="copy it again") from None


def writable(word: str) -> bool:
    """Whether an ARPA file can hold a word."""
    return bool(word) and not {*word.encode(errors="replace")} & {*_BLANKS}


def _content(lines: Iterable[bytes], file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines from that of `data` on that are not blank, with their numbers; before it there may be anything."""
    begun = False
    for number, line in enumerate(lines, start=1):
        stripped = line.strip(_BLANKS)
        if number == 1:
            stripped = stripped.removeprefix("\ufeff".encode())
            if stripped.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise ModelError("cannot be read: it is in UTF-16", where=file, remedy="save it as UTF-8")
            if stripped.startswith((b"mmap lm http://kheafield.com", b"blmt", b"iARPA", b"qARPA")):
                raise ModelError(
                    f"no ARPA file, but one of {'KenLM' if stripped.startswith(b'mmap') else 'IRSTLM'} of another kind",
                    where=file,
                    remedy="name the ARPA file that it was made from (IRSTLM: compile-lm --text=yes writes one)",
                )
        begun = begun or stripped.lower() == b"\\data\\"
        if begun and stripped:
            yield number, stripped


def _read(lines: Iterator[tuple[int, bytes]], file: Path) -> tuple[tuple[NGrams, ...], list[str]]:
    sizes, heading = _sizes(lines, file)
    words: list[str] = []
    ids: dict[bytes, int] = {}
    rows_of, numbers_of = [], []
    for n, size in enumerate(sizes, start=1):
        rows, numbers = array("q"), array("d")
        if heading == b"\\%d-grams:" % n:
            heading = _section(lines, n, ids, words, rows, numbers, file)
        elif size:
            raise _bad(file, 0, f"\\{n}-grams: is missing")
        if len(numbers) != 2 * size:
            raise _bad(file, 0, f"{len(numbers) // 2} n-grams of order {n}, and {size} are announced")
        if n == 1:
            _complete(ids, words, rows, numbers)
        rows_of.append(np.array(rows, np.int64).reshape(-1, n))
        numbers_of.append(np.array(numbers).reshape(-1, 2))
    if heading != b"\\end\\":
        raise _bad(file, 0, "\\end\\ is missing")
    while len(rows_of) > 1 and not len(rows_of[-1]):
        rows_of.pop()
        numbers_of.pop()
    for n in range(len(rows_of) - 1, 1, -1):  # of bigrams the beginnings are unigrams, all of which are there
        missing = _missing(rows_of[n][:, :-1], rows_of[n - 1])
        rows_of[n - 1] = np.concatenate([rows_of[n - 1], missing])
        numbers_of[n - 1] = np.concatenate([numbers_of[n - 1], np.tile([np.nan, 0.0], (len(missing), 1))])
    found: list[NGrams] = []
    for order_rows, order_numbers in zip(rows_of, numbers_of, strict=True):
        found.append(_tree(order_rows, order_numbers, found, words, file))
    return tuple(found), words


def _sizes(lines: Iterator[tuple[int, bytes]], file: Path) -> tuple[list[int], bytes]:
    """How many n-grams there are of each order, and the line behind."""
    if next(lines, None) is None:
        raise _bad(file, 0, "no ARPA file: it has no line \\data\\")
    sizes: list[int] = []
    for place, line in lines:
        counted = _SIZE.fullmatch(line)
        if counted is None:
            if sizes and sizes[0]:
                return sizes, line
            raise _bad(file, place, "no number of unigrams")
        if int(counted[1]) != len(sizes) + 1:
            raise _bad(file, place, f"n-grams of order {int(counted[1])} where order {len(sizes) + 1} is due")
        sizes.append(int(counted[2]))
    return sizes, b""


def _section(
    lines: Iterator[tuple[int, bytes]],
    n: int,
    ids: dict[bytes, int],
    words: list[str],
    rows: "array[int]",
    numbers: "array[float]",
    file: Path,
) -> bytes:
    """Reads the n-grams of one order to the end of `rows` and `numbers`, unigrams to `words` too; the line behind."""
    for place, line in lines:
        if line.startswith(b"\\"):
            return line
        log_prob, gram, backoff = _fields(line, n, file, place)
        if n == 1:
            (spelling,) = gram
            name = UNKNOWN.encode() if spelling == b"<UNK>" else spelling
            if name in ids:
                raise _bad(file, place, f"the word {_text(name)!r} comes twice")
            try:
                words.append(name.decode())
            except UnicodeDecodeError:
                raise _bad(file, place, f"the word {_text(name)!r} is not in UTF-8") from None
            ids[name] = ids[spelling] = len(words) - 1
            log_prob = IMPOSSIBLE if name == START.encode() else log_prob
        try:
            rows.extend([ids[word] for word in gram])
        except KeyError as error:
            raise _bad(file, place, f"{_text(error.args[0])!r} is no unigram") from None
        numbers.extend((log_prob, backoff))
    return b""


def _complete(ids: dict[bytes, int], words: list[str], rows: "array[int]", numbers: "array[float]") -> None:
    """Gives the unigrams that every n-gram needs their names, and adds those that this one has not."""
    for name, log_prob in ((UNKNOWN, NO_UNKNOWN), (START, IMPOSSIBLE), (END, 0.0)):
        if name.encode() in ids:
            continue
        number = next((ids[other.encode()] for other in OTHER_SPELLINGS[name] if other.encode() in ids), None)
        if number is not None:
            words[number], ids[name.encode()] = name, number
            if name == START:
                numbers[2 * number] = IMPOSSIBLE
        else:
            ids[name.encode()] = len(words)
            rows.append(len(words))
            words.append(name)
            numbers.extend((log_prob, 0.0))


def _fields(line: bytes, n: int, file: Path, number: int) -> tuple[float, list[bytes], float]:
    fields = line.split()
    try:
        if len(fields) not in (n + 1, n + 2):
            raise ValueError
        log_prob, backoff = float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0
        if not (log_prob <= ROUNDING and backoff < inf):
            raise ValueError
    except ValueError:
        raise _bad(file, number, f"no n-gram of order {n}: {_text(line[:80])!r}") from None
    return max(min(log_prob, 0.0), NO_UNKNOWN), fields[1 : n + 1], max(backoff, IMPOSSIBLE)


def _missing(beginnings: Ints, there: Ints) -> Ints:
    """The n-grams, each once, that others begin with and that are not there, all of them (n-grams, n)."""
    rows = np.concatenate([there, beginnings])
    keys, base = rows[:, 0], int(rows.max(initial=0)) + 1
    for column in rows.T[1:]:
        keys = np.unique(keys, return_inverse=True)[1] * base + column
    _, first = np.unique(keys, return_index=True)
    return rows[np.sort(first[first >= len(there)])]


def _tree(rows: Ints, numbers: Floats, below: Sequence[NGrams], words: Sequence[str], file: Path) -> NGrams:
    """N-grams in any order, (n-grams, n), with their two numbers, (n-grams, 2), as the next of the tables."""
    places = np.zeros(len(rows), np.int64)
    for each, column in zip(below, rows.T, strict=False):
        keys, wanted = each.prefixes * len(words) + each.last, places * len(words) + column
        places = np.searchsorted(keys, wanted)
    keys = places * len(words) + rows[:, -1]
    order = np.argsort(keys)
    if (again := np.diff(keys[order]) == 0).any():
        gram = " ".join(words[number] for number in rows[order[again.argmax()]])
        raise _bad(file, 0, f"the n-gram {gram!r} comes twice")
    return NGrams(places[order], rows[order, -1].astype(np.int32), numbers[order, 0], numbers[order, 1])


def _text(spelling: bytes) -> str:
    return spelling.decode(errors="backslashreplace")


def _bad(file: Path, line: int, what: str) -> ModelError:
    return ModelError(what, where=f"{file}:{line}" if line else file, remedy="make the file again, or copy it again")
