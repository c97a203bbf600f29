"""Text forms of label units: which characters a text keeps before it is cut into labels."""

from typing import TYPE_CHECKING, Literal

from kikitori.errors import ConfigError
from kikitori.text.normalize import APOSTROPHES, INVISIBLE

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer

TextForm = Literal["as_is", "lower", "en_plain"]
WORD_MARK = "▁"
"""Stands for a space in labels, so that no text keeps one."""


def in_form(text: str, text_form: TextForm) -> str:
    """A text in a text form, with single spaces between words."""
    return str(text_normalizer(text_form).normalize_str(text))


def text_normalizer(text_form: TextForm) -> "Normalizer":
    """What brings a text into a form, for the tokenizers library.

    Raises:
        ConfigError: There is no such form.
    """
    from tokenizers import Regex, normalizers

    # Folders name the form alone, and `verbatim` counts its parts: what is new joins the first of them.
    seen = normalizers.Replace(Regex(INVISIBLE), "")
    apostrophes = normalizers.Replace(Regex(rf"(?<=[\p{{L}}\p{{N}}])[{APOSTROPHES}](?=[\p{{L}}\p{{N}}])"), "'")
    hyphens = normalizers.Replace(Regex("[\u2010\u2011]"), "-")
    spaces = [normalizers.Replace(Regex(rf"[\s\p{{Cc}}{WORD_MARK}]+"), " "), normalizers.Strip()]
    match text_form:
        case "as_is":
            return normalizers.Sequence([normalizers.Sequence([seen, normalizers.NFKC()]), *spaces])
        case "lower":
            composed = normalizers.Sequence([seen, apostrophes, normalizers.NFKC(), hyphens])
            return normalizers.Sequence([composed, normalizers.Lowercase(), *spaces])
        case "en_plain":
            return normalizers.Sequence(
                [
                    normalizers.Sequence([seen, apostrophes, normalizers.NFKD()]),
                    normalizers.StripAccents(),
                    normalizers.Lowercase(),
                    normalizers.Replace(Regex("[’‘`]"), "'"),
                    # An apostrophe stays inside a word (don't) and goes elsewhere (a closing quotation mark).
                    normalizers.Replace(Regex(r"(?<![a-z])'|'(?![a-z])"), " "),
                    normalizers.Replace(Regex("[^a-z']+"), " "),
                    *spaces,
                ]
            )
    raise ConfigError(f"unknown text form '{text_form}'", remedy="use as_is, lower or en_plain")
