"""Texts and labels as the letters that hotwords count; a label may end inside a character."""

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from kikitori.text.token_bytes import token_bytes
from kikitori.text.units import TokenizerUnits

BORDER = " "
_LATIN = str.maketrans({"æ": "ae", "ø": "o", "œ": "oe", "ð": "d", "đ": "d", "ħ": "h", "ı": "i", "ł": "l", "þ": "th"})


def letters_of(text: str, *, spaced: bool = True) -> str:
    """What counts of a text: letters without case and accents, one space between words, or none without `spaced`."""
    return (BORDER if spaced else "").join("".join(map(letter, text)).split())


@cache
def letter(character: str) -> str:
    """What a character counts as: letters without case and accents, a space if it separates words."""
    plain = unicodedata.normalize("NFKD", character.casefold()).translate(_LATIN)
    # Not all combining marks: others are vowels, or the voicing of kana.
    bare = unicodedata.normalize("NFC", "".join(each for each in plain if not "\u0300" <= each <= "\u036f"))
    return "".join(each if unicodedata.category(each)[0] in "LMN" else BORDER for each in bare)


@dataclass(frozen=True, eq=False)
class LabelLetters:
    """What some labels write, one after the other.

    Attributes:
        alphabet: The letters, and the border, that any of them writes.
        numbers: Those of each label by their number in the alphabet, all labels one after the other.
        offsets: Where each label's begin, (labels + 1,).
        rests: Of each label the beginning of a character that is not complete.
    """

    alphabet: tuple[str, ...]
    numbers: NDArray[np.int32]
    offsets: NDArray[np.int64]
    rests: tuple[bytes, ...]


class UnitLetters:
    """What the labels of some units write behind a character that is, or is not, complete."""

    def __init__(self, units: TokenizerUnits) -> None:
        self._bytes = [content or b"" for content in token_bytes(units)]
        self._known: dict[bytes, LabelLetters] = {}
        self.goes_on = np.array([content[:1] and content[0] & 0xC0 == 0x80 for content in self._bytes], np.bool_)
        """Whether each label begins inside a character, (labels,)."""
        self.silent = np.array([not content for content in self._bytes], np.bool_)
        """Whether each label writes nothing, (labels,)."""
        self.begins_word = np.array([_written(b"", content)[0][:1] == BORDER for content in self._bytes], np.bool_)
        """Whether what each label writes begins with a border of words, (labels,)."""

    def behind(self, rest: bytes = b"") -> LabelLetters:
        """What each label writes behind the beginning of a character: all of them behind none, else those that go on.

        The others end that character, which then counts as a border, and write what they write behind none.
        """
        if rest not in self._known:
            chosen = self._bytes if not rest else [self._bytes[label] for label in np.flatnonzero(self.goes_on)]
            self._known[rest] = _label_letters([_written(rest, content) for content in chosen])
        return self._known[rest]

    def after(self, rest: bytes, label: int) -> tuple[str, bytes]:
        """What one label writes behind the beginning of a character, and what it leaves."""
        return _written(rest, self._bytes[label]) if label < len(self._bytes) else ("", rest)


@lru_cache(maxsize=8)
def unit_letters(units: TokenizerUnits) -> UnitLetters:
    """What the labels of some units write; made once."""
    return UnitLetters(units)


def _written(rest: bytes, content: bytes) -> tuple[str, bytes]:
    if not content:
        return "", rest
    reader = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = reader.decode(rest + content)
    return "".join(map(letter, text)), reader.getstate()[0]


def _label_letters(written: Sequence[tuple[str, bytes]]) -> LabelLetters:
    alphabet = {each: number for number, each in enumerate(sorted({each for text, _ in written for each in text}))}
    numbers = np.array([alphabet[each] for text, _ in written for each in text], np.int32)
    offsets = np.cumsum([0, *(len(text) for text, _ in written)])
    return LabelLetters((*alphabet,), numbers, offsets.astype(np.int64), tuple(rest for _, rest in written))
