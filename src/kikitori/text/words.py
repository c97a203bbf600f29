"""How languages write words side by side."""

from collections.abc import Iterable

from kikitori.text.normalize import primary_language

UNSPACED = ("ja", "zh", "th", "lo", "km", "my")
"""Languages that put no spaces between words."""


def writes_spaces(language: str | None) -> bool:
    """Whether a language, by its code, puts spaces between words; so it does if it is not known."""
    return primary_language(language) not in UNSPACED


def join_words(words: Iterable[str], language: str | None) -> str:
    """Words as their language writes them: with spaces between them, or without."""
    return (" " if writes_spaces(language) else "").join(words)
