"""Marks of stress: digits on the vowels of ARPAbet (CMUdict, flite), raised and lowered strokes of the IPA."""

from collections.abc import Iterable

from kikitori.text.lexicon import Pronunciation

_VOWELS = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
_CONSONANTS = "b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh"
ARPABET_VOWELS = frozenset(_VOWELS.split())
ARPABET = ARPABET_VOWELS | frozenset(_CONSONANTS.split())
"""The 39 phones of CMUdict, in lower case."""
_STROKES = str.maketrans("", "", "ˈˌ")


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
