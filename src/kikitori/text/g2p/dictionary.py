"""Pronunciations from a file: CMUdict, Kaldi, MFA, or a lexicon of words that others get wrong; ARPAbet and stress.

Stress is marked by digits on the vowels of ARPAbet (CMUdict, flite), and by raised and lowered strokes in the IPA.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kikitori.errors import DataError
from kikitori.text.lexicon import Pronunciation, read_pronunciations
from kikitori.text.normalize import straight_apostrophes

_VOWELS = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
_CONSONANTS = "b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh"
ARPABET_VOWELS = frozenset(_VOWELS.split())
ARPABET = ARPABET_VOWELS | frozenset(_CONSONANTS.split())
"""The 39 phones of CMUdict, in lower case."""
_STROKES = str.maketrans("", "", "ˈˌ")


class Dictionary:
    """A dictionary in CMUdict's format, or a lexicon.

    The formats are those of `kikitori.text.lexicon`; old releases of CMUdict are in Latin-1. Upper and lower case of
    words, straight and curly apostrophes count as one, and ARPAbet becomes lower case, as flite writes it.

    Raises:
        DataError: It cannot be read, a word has no phones, or there is no word.
    """

    def __init__(self, path: Path, *, stress: bool) -> None:
        found: dict[str, list[Pronunciation]] = {}
        for word, ways in read_pronunciations(path, encoding=_encoding(path)).items():
            found.setdefault(_key(word), []).extend(ways)
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
        return {word: self.entries[_key(word)] for word in words if _key(word) in self.entries}


def _key(word: str) -> str:
    return straight_apostrophes(word).lower()


def _encoding(path: Path) -> str:
    """UTF-8, but for dictionaries that begin with CMUdict's marks of comments and are no UTF-8."""
    if path.suffix in (".gz", ".xz") or not path.is_file():
        return "utf-8"
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        return "latin-1" if content.startswith(b";;;") else "utf-8"
    return "utf-8"


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
