"""Languages by their codes: the one table of those written without spaces, whose errors are counted in characters.

Training, the choice of epochs and scoring all ask here.
"""

import re

from kikitori.errors import ConfigError

UNSPACED = ("ja", "zh", "yue", "wuu", "nan", "hak", "th", "lo", "km", "my", "bo", "dz")
"""Languages that put no spaces between words; errors are counted in characters."""
UNSPACED_SCRIPTS = ("HIRAGANA", "KATAKANA", "CJK", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""How Unicode's names of their letters begin, for text whose language is not known."""
# ISO 639-3 and 639-2/B, of the languages that are treated in a way of their own.
_TWO_LETTERS = {
    "eng": "en",
    "jpn": "ja",
    "zho": "zh",
    "chi": "zh",
    "cmn": "zh",
    "tha": "th",
    "lao": "lo",
    "khm": "km",
    "mya": "my",
    "bur": "my",
    "bod": "bo",
    "tib": "bo",
    "dzo": "dz",
}


def primary_language(language: str | None) -> str | None:
    """The primary part of a language code, two letters where there are: `en` of `en-US` and of `eng`."""
    code = re.split("[-_]", language.strip().lower())[0] if language else None
    return _TWO_LETTERS.get(code or "", code)


def check_language(language: str | None, where: str) -> None:
    """Refuses what is no code of a language, such as its name, which would count as a language with spaces.

    Raises:
        ConfigError: It is none.
    """
    if language is not None and not re.fullmatch("[a-z]{2,3}", primary_language(language) or ""):
        what = f"'{language[:40]}' is no code of a language"
        raise ConfigError(what, where=where, remedy="write one such as en or ja")


def is_unspaced(language: str | None) -> bool:
    """Whether a language puts no spaces between words, so that its errors are counted in characters."""
    return primary_language(language) in UNSPACED
