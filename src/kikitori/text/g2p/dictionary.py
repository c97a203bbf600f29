"""Pronunciations from a file: CMUdict, or a lexicon of words that other sources get wrong; ARPAbet and marks of stress.

Stress is marked by digits on the vowels of ARPAbet (CMUdict, flite), and by raised and lowered strokes in the IPA.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kikitori.errors import DataError
from kikitori.text.corpus import read_lines
from kikitori.text.lexicon import Pronunciation

_VOWELS = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
_CONSONANTS = "b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh"
ARPABET_VOWELS = frozenset(_VOWELS.split())
ARPABET = ARPABET_VOWELS | frozenset(_CONSONANTS.split())
"""The 39 phones of CMUdict, in lower case."""
_STROKES = str.maketrans("", "", "ˈˌ")
_VARIANT = re.compile(r"\(\d+\)$")


class Dictionary:
    """A dictionary in CMUdict's format, or a lexicon.

    Each line is a word and its phones, with spaces or a tab between; `word(2)` is a further pronunciation of `word`.
    What follows # is a comment, and so are lines that begin with ;;;. Upper and lower case of words count as one, and
    ARPAbet becomes lower case, as flite writes it.

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


def bare(phone: str) -> str:
    """An ARPAbet phone without its digit."""
    return phone.rstrip("012")


def is_arpabet(phones: Iterable[str]) -> bool:
    """Whether all are ARPAbet, in upper or lower case, with stress or without."""
    return all(bare(phone).lower() in ARPABET for phone in phones)


def unstressed_vowels_marked(way: Iterable[str]) -> Pronunciation:
    """ARPAbet in which vowels without a digit get 0."""
    return tuple(f"{phone}0" if phone in ARPABET_VOWELS else phone for phone in way)


def without_stress(way: Iterable[str], *, arpabet: bool) -> Pronunciation:
    """A pronunciation without marks of stress; digits are such marks in ARPAbet alone (elsewhere they are tones)."""
    return tuple(bare(phone) if arpabet else phone.translate(_STROKES) for phone in way)
