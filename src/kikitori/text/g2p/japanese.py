"""Japanese: kana by a table, and any text through Open JTalk, in the phones of Open JTalk."""

import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout

from kikitori.errors import ConfigError
from kikitori.text.lexicon import Pronunciation

_VOWELS = "aiueo"
_ROWS = {
    "": "あいうえお",
    "k": "かきくけこ",
    "g": "がぎぐげご",
    "s": "さ_すせそ",
    "z": "ざ_ずぜぞ",
    "t": "た__てと",
    "d": "だ__でど",
    "n": "なにぬねの",
    "h": "はひ_へほ",
    "b": "ばびぶべぼ",
    "p": "ぱぴぷぺぽ",
    "m": "まみむめも",
    "y": "や_ゆ_よ",
    "r": "らりるれろ",
    "w": "わ____",
}
_MORAS = {kana: (row, vowel) for row, line in _ROWS.items() for kana, vowel in zip(line, _VOWELS, strict=True)} | {
    "し": ("sh", "i"),
    "じ": ("j", "i"),
    "ち": ("ch", "i"),
    "ぢ": ("j", "i"),
    "つ": ("ts", "u"),
    "づ": ("z", "u"),
    "ふ": ("f", "u"),
    "ゔ": ("v", "u"),
    "ゐ": ("", "i"),
    "ゑ": ("", "e"),
    "を": ("", "o"),
}
_SMALL_VOWELS = dict(zip("ぁぃぅぇぉ", _VOWELS, strict=True))
_SMALL_Y = {"ゃ": "a", "ゅ": "u", "ょ": "o"}
_PALATAL = {row: f"{row}y" for row in "kgnhbpmrtdf"} | {"sh": "sh", "j": "j", "ch": "ch", "v": "by", "": "y"}
_ROUNDED = {"": "w", "k": "kw", "g": "gw"}
_LONG = {("o", "う"): "o", ("e", "い"): "e"}


class Kana:
    """Words in hiragana and katakana, by a table.

    The usual pronunciation takes おう and えい as long vowels, as they nearly always are; that of the letters as they
    stand (思う, omou) is the second.
    """

    name = "kana"

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """Pronunciations of the words that are nothing but kana."""
        found = ((word, kana_phones(word, long_vowels=True), kana_phones(word, long_vowels=False)) for word in words)
        return {word: tuple(dict.fromkeys((usual, literal))) for word, usual, literal in found if usual and literal}


class OpenJTalkG2P:
    """Japanese in any script through Open JTalk, by the package pyopenjtalk-plus.

    Raises:
        ConfigError: It is not installed.
    """

    name = "openjtalk"

    def __init__(self) -> None:
        try:
            with redirect_stdout(sys.stderr):  # it prints what it misses when it is imported
                import pyopenjtalk
        except ImportError:
            raise ConfigError(
                "is not installed", where="pyopenjtalk", remedy="pip install pyopenjtalk-plus, or use kana"
            ) from None
        self._g2p = pyopenjtalk.g2p

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """One pronunciation of every word that has any; devoiced vowels count as vowels."""
        said = ((word, self._g2p(word).split()) for word in words)
        ways = ((word, tuple(_voiced(phone) for phone in phones if phone != "pau")) for word, phones in said)
        return {word: (way,) for word, way in ways if way}


def kana_phones(word: str, *, long_vowels: bool) -> Pronunciation | None:
    """Phones of a word in kana of any width; None if it has another character, or a mark that nothing goes before.

    `long_vowels` takes おう and えい as long vowels.
    """
    phones: list[str] = []
    for onset, vowel, kana in _moras(_hiragana(word)):
        if kana not in _MORAS and kana not in "ーっん" and not vowel:
            return None
        if kana == "ー":
            if not phones or phones[-1] not in {*_VOWELS, "N"}:
                return None
            phones.append(phones[-1])
        elif long_vowels and phones and (phones[-1], kana) in _LONG:
            phones.append(phones[-1])
        else:
            phones += filter(None, (onset, vowel))
    return tuple(phones) or None


def _moras(word: str) -> Iterator[tuple[str, str, str]]:
    """Consonant, vowel and kana of each mora; both are empty for a character that is no kana."""
    position = 0
    while position < len(word):
        kana, small = word[position], word[position + 1 : position + 2]
        position += 1
        match kana:
            case "ん":
                yield "N", "", kana
            case "っ":
                yield "cl", "", kana
            case _ if kana in _MORAS:
                onset, vowel = _MORAS[kana]
                if joined := _joined(onset, vowel, small):
                    position += 1
                    yield *joined, kana + small
                else:
                    yield onset, vowel, kana
            case _:
                yield "", _SMALL_VOWELS.get(kana, ""), kana


def _joined(onset: str, vowel: str, small: str) -> tuple[str, str] | None:
    """Consonant and vowel of a kana with a small one, if they make one mora; in ねぇ and さぁ they are two."""
    if small in _SMALL_Y and onset in _PALATAL and (vowel in "iu" or onset in {"t", "d"}):
        return _PALATAL[onset], _SMALL_Y[small]
    if small == "ゎ" and onset in {"k", "g"} and vowel == "u":
        return _ROUNDED[onset], "a"
    if small not in _SMALL_VOWELS or _SMALL_VOWELS[small] == vowel:
        return None
    match onset, vowel:
        case "t" | "d", "e" | "o":
            return onset, _SMALL_VOWELS[small]
        case "" | "k" | "g", "u":
            return _ROUNDED[onset], _SMALL_VOWELS[small]
        case _, "i":
            return _PALATAL[onset], _SMALL_VOWELS[small]
        case "f" | "v" | "ts" | "s" | "z", "u":
            return onset, _SMALL_VOWELS[small]
    return None


def _hiragana(word: str) -> str:
    full = unicodedata.normalize("NFKC", word)
    return "".join(chr(ord(character) - 0x60) if "ァ" <= character <= "ヴ" else character for character in full)


def _voiced(phone: str) -> str:
    return phone.lower() if phone in {"A", "I", "U", "E", "O"} else phone
