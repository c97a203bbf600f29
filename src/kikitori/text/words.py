"""Words of languages: whether they are written with spaces between them, and which are fillers (um, えーと).

Fillers fill a pause. Normalizers may drop them, so they are counted in raw text. A recogniser that was adapted to
spontaneous speech may write them where nobody said one (papers.md A6).
"""

import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable
from functools import cache

from kikitori.errors import DataError, KikitoriWarning
from kikitori.text.forms.languages import is_unspaced, primary_language
from kikitori.text.normalize import straight_apostrophes, visible

FILLERS: dict[str, tuple[str, ...]] = {
    "en": ("uh", "uhm", "um", "er", "erm", "ah", "eh", "hm", "mm", "mhm"),
    "ja": (
        *("えー", "えーと", "えーっと", "えっと", "ええと", "あー", "うー", "うーん", "うーんと", "んー", "んーと"),
        *("あの", "あのー", "あのう", "その", "そのー", "まあ", "まー"),
    ),
}
"""By language. あの, その and まあ are ordinary words too: compare their number with that of the reference."""

LOWEST_COVERAGE, LOW_COVERAGE = 0.1, 0.5
"""Shares of known words below which two vocabularies are refused as not made for each other, and a warning is given."""
FEW_WORDS = 10
"""Of fewer, shares say little."""

_UNSPACED_WORD = re.compile(r"""(?:[A-Za-z0-9'’.,]*[A-Za-z0-9]|[^\s])[^\w\s]*""")
_WAVES = str.maketrans("〜~", "ーー")


def writes_spaces(language: str | None) -> bool:
    """Whether a language, by its code, puts spaces between words; so it does if it is not known."""
    return not is_unspaced(language)


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


def check_coverage(words: Collection[str], known: Collection[str], *, what: str, where: object) -> None:
    """Refuses two vocabularies that hardly meet, and warns where they meet badly: the smaller one's share counts.

    `what` says who knows whose words; in capitals, with other apostrophes or in another script, these are other words.

    Raises:
        DataError: Fewer than a tenth of the words are known.
    """
    some, others = (words, {*known}) if len(words) <= len(known) else (known, {*words})
    unknown = [word for word in some if word not in others]
    share = 1 - len(unknown) / max(1, len(some))
    if share >= LOW_COVERAGE or len(some) < FEW_WORDS:
        return
    folded = {_folded(word) for word in others}
    alike = sum(_folded(word) in folded for word in unknown) > len(unknown) / 2
    why = "but for capitals and apostrophes they are the same" if alike else "give both the same form of words"
    found = f"{what}: {len(some) - len(unknown)} of {len(some)} are known, and {min(unknown)!r} for one is not"
    if share < LOWEST_COVERAGE:
        remedy = f"{why}: make both with one --text-form" if alike else why
        raise DataError(found, where=where, remedy=remedy)
    warnings.warn(f"{where}: {found}; {why}", KikitoriWarning, stacklevel=3)


def _folded(word: str) -> str:
    return straight_apostrophes(visible(word)).casefold()


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
