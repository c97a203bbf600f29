"""English as Whisper and the Open ASR Leaderboard score it."""

import re
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

# How the leaderboard's English form differs from Whisper's.
_FILLERS = r"\b(hmm|mm|mhm|mmm|uh|um|huh|em)\b"
# `'s` is a verb after these words alone; everywhere else it may be a possessive, and stays a word `s`.
_IS = re.compile(r"\b(he|she|it|that|there|here|what|who|where|when|how|why)'s\b")
_CHANGED = (r"'s\b", r"\bcause\b")  # left out of Whisper's replacements
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}(?:[a-z]\b)?")
_FRACTION = re.compile(r"(?<=\d)/(?=\d)")
_ALL_RIGHT = re.compile(r"\ball right\b")
_NAMES = {
    "ann": "anne",
    "charley": "charlie",
    "jon": "john",
    "lewis": "louis",
    "sara": "sarah",
    "stephen": "steven",
}


_KEPT = ".%$¢€£"  # they may belong to a number
_ASCII = {code: " " for code in range(128) if unicodedata.category(chr(code))[0] in "MSP" and chr(code) not in _KEPT}
_BRACKETS, _DIGIT, _AND = re.compile(r"[<\[(]"), re.compile("[0-9]"), re.compile(r"\band\s+(?:and|a\s+half)\b")
_POINT, _SYMBOL = re.compile(r"\.([^0-9]|$)"), re.compile(r"[.$¢€£]([^0-9])")


@dataclass(frozen=True)
class _English:
    """Whisper's English normalizer (`plain`), and what its steps are made of.

    Attributes:
        replacements: A piece of text that each of Whisper's patterns needs, the pattern, and what takes its place.
        number_words: All words that its number parser does not leave as they are.
    """

    plain: Callable[[str], str]
    fillers: re.Pattern[str]
    replacements: tuple[tuple[str, re.Pattern[str], str], ...]
    numbers: Callable[[str], str]
    number_words: frozenset[str]
    spellings: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """What `plain` gives but for white space at the ends, without the steps that would leave the text as it is."""
        text = text.lower()
        if not text.isascii() or _BRACKETS.search(text):
            return self.plain(text)
        text = self.fillers.sub("", text)
        if "'" in text:
            text = re.sub(r"\s+'", "'", text)
        for needed, pattern, replacement in self.replacements:
            if needed in text:
                text = pattern.sub(replacement, text)
        if "," in text:
            text = re.sub(r"(\d),(\d)", r"\1\2", text)
        if "." in text:
            text = _POINT.sub(r" \1", text)
        text = text.translate(_ASCII)
        words = text.split()
        if _DIGIT.search(text) or not self.number_words.isdisjoint(words) or _AND.search(text):
            text = self.numbers(text)
        text = self.spellings(text)
        return re.sub(r"([^0-9])%", r"\1 ", _SYMBOL.sub(r" \1", text))


def whisper_en(text: str) -> str:
    """The form of Whisper's English normalizer, numbers and all."""
    return " ".join(_in_english(text, *_english()).split())


def open_asr_en(text: str) -> str:
    """The form of the Open ASR Leaderboard, see `kikitori.text.normalize.normalize`."""
    # "Has", where a participle shows it, comes before `'s` is read as "is".
    text = re.sub(r"'s (been|gone|got)\b", r" has \1", text.lower())
    text = _INITIALS.sub(lambda found: found.group().replace(".", ""), _IS.sub(r"\1 is", text))
    plain = _in_english(_FRACTION.sub("", text), *_open_asr_english())
    return " ".join(_NAMES.get(word, word) for word in _ALL_RIGHT.sub("alright", plain).split())


def _in_english(text: str, full: Callable[[str], str], numbers_kept: Callable[[str], str]) -> str:
    try:
        return full(text)
    except (ArithmeticError, AssertionError, IndexError, TypeError, ValueError):  # its number parser has limits
        return numbers_kept(text)


@cache
def _english() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Returns Whisper's English normalizer, and the same without number parsing."""
    return _fast(english_normalizer()), _fast(english_normalizer(), numbers=False)


@cache
def _open_asr_english() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Returns Whisper's English normalizer with other fillers and contractions, and the same without number parsing."""
    forms = english_normalizer(), english_normalizer()
    for form in forms:
        form.ignore_patterns = _FILLERS
        form.replacers = {key: value for key, value in form.replacers.items() if key not in _CHANGED}
    return _fast(forms[0]), _fast(forms[1], numbers=False)


def english_normalizer() -> Any:
    """Whisper's English normalizer itself, a new one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whisper_normalizer has an invalid escape sequence, reported on first compile
        from whisper_normalizer.english import EnglishTextNormalizer
    return EnglishTextNormalizer()


def _fast(plain: Any, *, numbers: bool = True) -> _English:
    parser = plain.standardize_numbers
    if not numbers:
        plain.standardize_numbers = str
    return _English(
        plain=plain,
        fillers=re.compile(plain.ignore_patterns),
        replacements=tuple(
            # Its patterns are plain text between borders of words.
            (pattern.replace(r"\b", ""), re.compile(pattern), replacement)
            for pattern, replacement in plain.replacers.items()
        ),
        numbers=plain.standardize_numbers,
        # "And" alone is left as it is.
        number_words=frozenset(parser.words) - {"and"},
        spellings=plain.standardize_spellings,
    )
