"""Pronunciations from a file: CMUdict, or a lexicon of words that other sources get wrong."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kikitori.errors import DataError
from kikitori.text.corpus import read_lines
from kikitori.text.g2p.stress import is_arpabet, without_stress
from kikitori.text.lexicon import Pronunciation

_VARIANT = re.compile(r"\(\d+\)$")


class Dictionary:
    """A dictionary in CMUdict's format, or a lexicon.

    Each line is a word and its phones, with spaces or a tab between; `word(2)` is a further pronunciation of `word`.
    What follows # is a comment, and so are lines that begin with ;;;. Upper and lower case of words count as one, and
    ARPAbet becomes lower case, as flite writes it.

    Args:
        path: The file, plain, .gz or .xz.
        stress: Keep the marks of stress.

    Raises:
        DataError: It cannot be read, a word has no phones, or there is no word.
    """

    def __init__(self, path: Path, *, stress: bool) -> None:
        found: dict[str, list[Sequence[str]]] = {}
        for number, line in enumerate(read_lines(path), 1):
            fields = line.partition("#")[0].split()
            if not fields or fields[0].startswith(";;;"):
                continue
            word, *phones = fields
            if not phones:
                raise DataError("no pronunciation", where=f"{path}:{number}", remedy="write a word and its phones")
            found.setdefault(_VARIANT.sub("", word).lower(), []).append(phones)
        if not found:
            raise DataError("the dictionary is empty", where=path, remedy="name a file in CMUdict's format")
        arpabet = is_arpabet({phone for ways in found.values() for way in ways for phone in way})

        def read(way: Sequence[str]) -> Pronunciation:
            cased = [phone.lower() for phone in way] if arpabet else way
            return tuple(cased) if stress else without_stress(cased, arpabet=arpabet)

        self.name = path.name
        self.entries: Mapping[str, tuple[Pronunciation, ...]] = {
            # Some differ in stress alone.
            word: tuple(dict.fromkeys(read(way) for way in ways))
            for word, ways in found.items()
        }

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """All pronunciations of those of the words that the file has."""
        return {word: self.entries[word.lower()] for word in words if word.lower() in self.entries}
