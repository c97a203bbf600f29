"""English as Whisper and the Open ASR Leaderboard score it."""

import re
import warnings
from collections.abc import Callable
from functools import cache

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


def whisper_en(text: str) -> str:
    """The form of Whisper's English normalizer, numbers and all."""
    return _in_english(text, *_english()).strip()


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whisper_normalizer has an invalid escape sequence, reported on first compile
        from whisper_normalizer.english import EnglishTextNormalizer
    full, numbers_kept = EnglishTextNormalizer(), EnglishTextNormalizer()
    numbers_kept.standardize_numbers = str
    return full, numbers_kept


@cache
def _open_asr_english() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Returns Whisper's English normalizer with other fillers and contractions, and the same without number parsing."""
    _english()  # imports it without its warning
    from whisper_normalizer.english import EnglishTextNormalizer

    full, numbers_kept = EnglishTextNormalizer(), EnglishTextNormalizer()
    for each in (full, numbers_kept):
        each.ignore_patterns = _FILLERS
        each.replacers = {key: value for key, value in each.replacers.items() if key not in _CHANGED}
    numbers_kept.standardize_numbers = str
    return full, numbers_kept
