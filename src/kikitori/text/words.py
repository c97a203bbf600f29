"""Words of languages: whether they are written with spaces between them, and which are fillers (um, えーと).

Fillers fill a pause. Normalizers may drop them, so they are counted in raw text. A recogniser that was adapted to
spontaneous speech may write them where nobody said one (papers.md A6).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from kikitori.text.normalize import UNSPACED, primary_language

FILLERS: dict[str, tuple[str, ...]] = {
    "en": ("uh", "uhm", "um", "er", "erm", "ah", "eh", "hm", "mm", "mhm"),
    "ja": (
        *("えー", "えーと", "えーっと", "えっと", "ええと", "あー", "うー", "うーん", "うーんと", "んー", "んーと"),
        *("あの", "あのー", "あのう", "その", "そのー", "まあ", "まー"),
    ),
}
"""By language. あの, その and まあ are ordinary words too: compare their number with that of the reference."""

_UNSPACED_WORD = re.compile(r"""(?:[A-Za-z0-9'’.,]*[A-Za-z0-9]|[^\s])[^\w\s]*""")
_WAVES = str.maketrans("〜~", "ーー")


def writes_spaces(language: str | None) -> bool:
    """Whether a language, by its code, puts spaces between words; so it does if it is not known."""
    return primary_language(language) not in UNSPACED


def join_words(words: Iterable[str], language: str | None) -> str:
    """Words as their language writes them: with spaces between them, or without."""
    return (" " if writes_spaces(language) else "").join(words)


def join_texts(texts: Iterable[tuple[str, str | None]]) -> str:
    """Texts, each with the code of its language, as one: with a space between two unless both languages write none."""
    joined, spaced = "", True
    for text, language in texts:
        joined += " " * (bool(joined) and (spaced or writes_spaces(language))) + text
        spaced = writes_spaces(language)
    return joined


def split_words(text: str, language: str | None) -> list[str]:
    """The words of a text, marks included; characters in languages without spaces between words.

    There, runs of Latin letters and digits stay whole, and marks stay with what they follow.
    """
    if writes_spaces(language):
        return text.split()
    return _UNSPACED_WORD.findall(text)


def count_fillers(text: str, language: str | None) -> int | None:
    """Number of fillers in a raw text, lengthened ones (ummm, えーーと) included; None for other languages."""
    code = primary_language(language)
    if code not in FILLERS:
        return None
    return len(_pattern(code).findall(unicodedata.normalize("NFKC", text).lower().translate(_WAVES)))


@cache
def _pattern(code: str) -> re.Pattern[str]:
    longest_first = sorted(FILLERS[code], key=len, reverse=True)
    if code == "ja":  # written without spaces
        return re.compile("|".join(filler.replace("ー", "ー+") for filler in longest_first))
    return re.compile(rf"(?<![\w'])(?:{'|'.join(f'{filler}{filler[-1]}*' for filler in longest_first)})(?![\w'])")
