"""Pronunciation lexicons: how words are said, as phones.

A lexicon is a text file, plain or compressed, with one pronunciation a line: the word, a tab, its phones with spaces
between them. A word may have several lines; the first is the usual pronunciation. Lines that begin with # are comments.

What other toolkits write is read too: CMUdict's `word(2)` and `;;;`, Kaldi's lexicon.txt, lexiconp.txt and
lexiconp_silprob.txt with disambiguation symbols, MFA's dictionaries with up to four probabilities. Of these the first
is that of the pronunciation, by which those of a word are ordered; what they say of silences around words is dropped.
"""

import gzip
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kikitori.errors import DataError, ModelError
from kikitori.io.files import open_compressed, write_bytes
from kikitori.text.corpus import read_lines

Pronunciation = tuple[str, ...]
MOST_PROBABILITIES = 4
NO_WORDS = frozenset({"<eps>", "<epsilon>", "<s>", "</s>", "<unk>", "<oov>", "!sil"})
"""Entries of other toolkits that stand for no word; so do those in <>, [] or {}."""
NO_PHONES = frozenset({"sil", "sp", "spn", "nsn", "lau", "<eps>"})
"""Silence and noises, as Kaldi's recipes and MFA call them."""
_NOISE = re.compile(r"<.+>|\[.+\]|\{.+\}")
_VARIANT = re.compile(r"(?<=.)\(\d+\)$")
_BEGIN_DECIMAL = frozenset(".0123456789")
_COMMENT = re.compile(r"(?:^|\s)#(?!\d+(?:\s|$)).*")
_DISAMBIGUATION = re.compile(r"#\d+")
_PLAIN = re.compile(r"(?:#[^\r\n]*\n)*(?:[a-z][!-\"$-'*-~]*\t[a-z]+(?: [a-z]+)*\n)++")
"""What `write_lexicon` writes of English: as most lexicons are, and sooner read as a whole than by the line."""
_DECIMAL = re.compile(r"\d*\.\d+(?:e[-+]?\d+)?|\d+\.|\d+e[-+]\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Lexicon:
    """How words, in the form that transcripts are written in, are pronounced; the usual pronunciation first."""

    pronunciations: Mapping[str, tuple[Pronunciation, ...]]

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """All phones, in alphabetical order."""
        return tuple(sorted({phone for ways in self.pronunciations.values() for way in ways for phone in way}))

    def missing(self, text: str) -> list[str]:
        """Words of a text that the lexicon has not."""
        return [word for word in text.split() if word not in self.pronunciations]

    def pronounce(self, text: str) -> list[str] | None:
        """The usual phones of a text; None if a word is missing."""
        if self.missing(text):
            return None
        return [phone for word in text.split() for phone in self.pronunciations[word][0]]


def numbered(lexicon: Lexicon, numbers: Mapping[str, int], where: object) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The pronunciations of each word as the numbers that a model's phones have.

    Raises:
        ModelError: The model has not all of them; `where` the lexicon lies.
    """
    words = lexicon.pronunciations
    try:
        return {word: tuple([tuple([numbers[phone] for phone in way]) for way in ways]) for word, ways in words.items()}
    except KeyError as error:
        raise _strange_phone(words, numbers, str(error.args[0]), where) from None


def read_numbered(path: Path, numbers: Mapping[str, int]) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """What `numbered` gives of a lexicon's file; of a plain one each word's numbers are looked up when it is asked for.

    Raises:
        DataError: It cannot be read, a line is not a pronunciation, or there is none.
        ModelError: The model has not all of its phones.
    """
    if not (lines := _plain(path)):
        return numbered(read_lexicon(path), numbers, path)
    phones = {phone for ways in {way for ways in lines.values() for way in ways} for phone in ways.split()}
    if strange := sorted(phones - numbers.keys()):
        raise _strange_phone(_split(lines), numbers, strange[0], path)
    return NumberedWords(lines, numbers)


@dataclass(frozen=True, eq=False)
class NumberedWords(Mapping[str, tuple[tuple[int, ...], ...]]):
    """The pronunciations of words as numbers, from those in letters, phones with spaces between them."""

    ways: Mapping[str, Sequence[str]]
    numbers: Mapping[str, int]

    def __getitem__(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The pronunciations of a word, each once."""
        ways = dict.fromkeys(tuple(way.split()) for way in self.ways[word])
        return tuple(tuple(self.numbers[phone] for phone in way) for way in ways)

    def __iter__(self) -> Iterator[str]:
        """The words."""
        return iter(self.ways)

    def __len__(self) -> int:
        """How many words there are."""
        return len(self.ways)


def _strange_phone(
    words: Mapping[str, Iterable[Pronunciation]], numbers: Mapping[str, int], phone: str, where: object
) -> ModelError:
    word = next(word for word, ways in words.items() if any(phone in way for way in ways))
    return ModelError(
        f"'{word}' has the phone {phone!r}, which the model has not",
        where=where,
        remedy=f"use the lexicon that the model was trained with; its phones are {' '.join(numbers)}",
    )


def read_lexicon(path: Path) -> Lexicon:
    """Reads a lexicon.

    Raises:
        DataError: It cannot be read, a line is not a pronunciation, or there is none.
    """
    found = read_pronunciations(path, tabs=True)
    if not found:
        raise DataError("the lexicon is empty", where=path, remedy="build it with kikitori lexicon")
    return Lexicon({word: tuple(dict.fromkeys(ways)) for word, ways in found.items()})


def read_pronunciations(path: Path, *, tabs: bool = False, encoding: str = "utf-8") -> dict[str, list[Pronunciation]]:
    """Words with their pronunciations, the usual one first, of a lexicon or dictionary in any of the formats above.

    `tabs`: a tab must follow the word. Entries that are no words (silence, noise, `<eps>`, `<unk>`) are left out.

    Raises:
        DataError: It cannot be read, or a line is not a pronunciation.
    """
    if (plain := _plain(path)) is not None:
        return _split(plain)
    entries = [*_entries(path, tabs, encoding)]
    decimal = any(_is_decimal(fields[0]) for _, fields, _ in entries if fields[0][0] in _BEGIN_DECIMAL)
    found: dict[str, list[tuple[float, Pronunciation]]] = {}
    for word, fields, number in entries:
        count = 0
        if fields[0][0] in _BEGIN_DECIMAL:
            while count < min(MOST_PROBABILITIES, len(fields)) and _is_decimal(fields[count]):
                count += 1
            if not count and decimal and fields[0] in ("0", "1"):  # phones may be numbers, such as X-SAMPA's 2 and 9
                count = 1
        phones = tuple(fields[count:])
        if not phones:
            raise _no_pronunciation(path, number)
        if len(phones) > 1 or phones[0].casefold() not in NO_PHONES:
            found.setdefault(word, []).append((float(fields[0]) if count else 1.0, phones))
    return {word: [way for _, way in sorted(ways, key=lambda each: -each[0])] for word, ways in found.items()}


def _split(lines: Mapping[str, Iterable[str]]) -> dict[str, list[Pronunciation]]:
    return {word: [tuple(way.split()) for way in ways] for word, ways in lines.items()}


def _plain(path: Path) -> dict[str, list[str]] | None:
    """The pronunciations, as they stand there, of a lexicon that has nothing but words and phones; None of another."""
    if not path.is_file():
        return None
    try:
        with open_compressed(path) as file:
            text = file.read().decode("ascii")
    except (UnicodeDecodeError, OSError, EOFError, lzma.LZMAError, zlib.error):
        return None  # read by the line, which says what is wrong
    if not _PLAIN.fullmatch(text):
        return None
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):  # not at form feeds and the like, which may stand in a comment
        word, tab, phones = line.partition("\t")
        if tab and word[0] != "#" and phones not in NO_PHONES:
            found.setdefault(word, []).append(phones)
    return found


def _entries(path: Path, tabs: bool, encoding: str) -> Iterator[tuple[str, list[str], int]]:
    """Word, the fields behind it and the number of each line that holds a word."""
    for number, line in enumerate(read_lines(path, encoding=encoding), 1):
        if line.startswith(("#", ";;;")):
            continue
        word, _, rest = line.partition("\t" if tabs or "\t" in line else " ")
        word = word.strip()
        fields = rest.split()
        if "#" in rest:
            fields = [each for each in _COMMENT.sub("", rest).split() if not _DISAMBIGUATION.fullmatch(each)]
        if not word or not fields:
            raise _no_pronunciation(path, number)
        if word[0] in "<[{!" and (word.casefold() in NO_WORDS or _NOISE.fullmatch(word)):
            continue
        yield _VARIANT.sub("", word) if word[-1] == ")" else word, fields, number


def _is_decimal(field: str) -> bool:
    return field[0] in _BEGIN_DECIMAL and _DECIMAL.fullmatch(field) is not None


def _no_pronunciation(path: Path, number: int) -> DataError:
    return DataError("no pronunciation", where=f"{path}:{number}", remedy="write: word, tab, phones with spaces")


def write_lexicon(path: Path, lexicon: Lexicon, notes: Iterable[str] = ()) -> None:
    """Writes a lexicon with notes at its head, compressed if the file's name ends with .xz or .gz; makes its folder.

    Raises:
        DataError: The disk refuses.
    """
    content = "".join(f"{line}\n" for line in lexicon_lines(lexicon, notes)).encode()
    match path.suffix:
        case ".xz":
            content = lzma.compress(content)
        case ".gz":
            content = gzip.compress(content, mtime=0)
    write_bytes(path, content)


def lexicon_lines(lexicon: Lexicon, notes: Iterable[str] = ()) -> Iterable[str]:
    """The lines of a lexicon's file: notes as comments, then the words in alphabetical order."""
    yield from (f"# {note}".rstrip() for note in notes)
    for word in sorted(lexicon.pronunciations):
        for way in lexicon.pronunciations[word]:
            yield f"{word}\t{' '.join(way)}"
