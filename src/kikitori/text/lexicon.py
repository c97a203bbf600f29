"""Pronunciation lexicons: how words are said, as phones.

A lexicon is a text file, plain or compressed, with one pronunciation a line: the word, a tab, its phones with spaces
between them. A word may have several lines; the first is the usual pronunciation. Lines that begin with # are comments.
"""

import gzip
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kikitori.errors import DataError, ModelError
from kikitori.io.files import write_bytes
from kikitori.text.corpus import read_lines

Pronunciation = tuple[str, ...]


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


def phone_numbers(word: str, way: Pronunciation, numbers: Mapping[str, int], where: object) -> tuple[int, ...]:
    """A pronunciation of a word as the numbers that a model's phones have.

    Raises:
        ModelError: The model has not all of them; `where` the lexicon lies.
    """
    if other := [phone for phone in way if phone not in numbers]:
        raise ModelError(
            f"'{word}' has the phone {other[0]!r}, which the model has not",
            where=where,
            remedy=f"use the lexicon that the model was trained with; its phones are {' '.join(numbers)}",
        )
    return tuple(numbers[phone] for phone in way)


def read_lexicon(path: Path) -> Lexicon:
    """Reads a lexicon.

    Raises:
        DataError: It cannot be read, a line is not a pronunciation, or there is none.
    """
    found: dict[str, dict[Pronunciation, None]] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, phones = line.rstrip("\n").partition("\t")
        if not tab or not word.strip() or not phones.split():
            raise DataError("no pronunciation", where=f"{path}:{number}", remedy="write: word, tab, phones with spaces")
        found.setdefault(word.strip(), {})[tuple(phones.split())] = None
    if not found:
        raise DataError("the lexicon is empty", where=path, remedy="build it with kikitori lexicon")
    return Lexicon({word: tuple(ways) for word, ways in found.items()})


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
