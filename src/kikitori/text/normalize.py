"""Named text normalizers, applied to references and predictions alike before anything is counted.

Raw text goes in, the form that is scored comes out. A rate means nothing without the name of its normalizer, so every
report carries it. Normalizing never fails on odd text: recognisers do write odd text.
"""

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from functools import cache

from kikitori.errors import ConfigError

NORMALIZERS: tuple[str, ...] = ("whisper_en", "open_asr_en", "basic", "nfkc", "nfkc_ja", "kana_ja", "none")
WITHOUT_WORDS: tuple[str, ...] = ("nfkc", "nfkc_ja", "kana_ja")
"""Those that leave no words: errors are counted in characters."""
UNSPACED = ("ja", "zh", "yue", "wuu", "nan", "hak", "th", "lo", "km", "my", "bo", "dz")
"""Languages that put no spaces between words; errors are counted in characters."""
LETTERS_WITH_JOINERS = "\u0600-\u109f\u1780-\u18af\ua8e0-\ua8ff"
"""Arabic, the scripts of India and their neighbours: in these, joiners and non-joiners belong to the spelling."""
INVISIBLE = (
    # Soft hyphens, zero-width spaces, byte order marks, marks of direction and tags.
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
    f"|(?<![{LETTERS_WITH_JOINERS}])[\u200c\u200d]+"
)
"""Regular expression of characters that nobody sees or says; left out of labels, of what is scored and of lexicons."""
APOSTROPHES = "\u2019\u2018\u201b\u02bc\u00b4`\u2032\uff07"
"""Characters that stand for ' inside words: curly ones, the modifier letter, accents, the prime, full width."""

_INVISIBLE = re.compile(INVISIBLE)
_APOSTROPHE = re.compile(rf"(?<=[^\W_])[{APOSTROPHES}](?=[^\W_])")
_BY_LANGUAGE = {"en": "whisper_en", "ja": "nfkc_ja"}
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
# Stand-alone voicing marks decompose to a space and a mark; as combining marks they join their kana again.
_VOICING_MARKS = str.maketrans({"\u309b": "\u3099", "\u309c": "\u309a"})
_MAX_PASSES = 10
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
# Kana that sound alike, and which vowel each kana ends in.
_LONG = "ー"
_SAME_SOUND = str.maketrans("ヂヅヲヰヱ", "ジズオイエ")
_VOWELS = {
    "ア": "アカサタナハマヤラワガザダバパァャヮ",
    "イ": "イキシチニヒミリギジビピィ",
    "ウ": "ウクスツヌフムユルグズブプヴゥュ",
    "エ": "エケセテネヘメレゲゼデベペェ",
    "オ": "オコソトノホモヨロゴゾドボポォョ",
}
_VOWEL_OF = {kana: vowel for vowel, row in _VOWELS.items() for kana in row}
_LENGTHENED = {*((vowel, vowel) for vowel in _VOWELS), ("オ", "ウ"), ("エ", "イ")}


def normalize(name: str, text: str) -> str:
    """Returns `text` in the form that the normalizer called `name` scores.

    * `whisper_en`: Whisper's English normalizer (contractions, numbers, spelling, fillers), applied once so that rates
      compare with published ones. It is **not idempotent** on some numbers (`minus nine` gives `-9`, then `9`), so pass
      raw text only. Text whose numbers it cannot parse (thousands of digits in a row) keeps them as they are.
    * `open_asr_en`: as the Open ASR Leaderboard scores English;
      on Whisper's, with `'s` as `is` after pronouns and question words only, letters with points as one word (`a.m.` is
      `am`), `em` and `huh` as fillers, some names spelt in one way. Its longer lists of spellings and abbreviations are
      not here. Not idempotent either.
    * `basic`: Whisper's normalizer for other languages (lower case, no brackets, punctuation or symbols), except that
      combining marks stay: they are vowels in many scripts, and the dakuten in Japanese.
    * `nfkc`: NFKC, lower case, no punctuation, symbols, white space or control characters: for languages that put no
      spaces between words.
    * `nfkc_ja`: the same, for Japanese. Fillers, numbers and the long vowel mark stay.
    * `kana_ja`: the kana of a Japanese reading as they sound (`spoken_kana`); whatever is no kana is lost.
    * `none`: the text itself.

    All but `none` leave out characters that cannot be seen, and take curly apostrophes inside words for straight ones.

    Raises:
        ConfigError: No normalizer has that name.
    """
    if name != "none":
        text = straight_apostrophes(visible(text))
    match name:
        case "whisper_en":
            return _whisper_en(text)
        case "open_asr_en":
            return _open_asr_en(text)
        case "basic":
            return _until_stable(_basic(), text)
        case "nfkc" | "nfkc_ja":
            return _until_stable(_nfkc_ja, text)
        case "kana_ja":
            return spoken_kana(text)
        case "none":
            return text
    raise ConfigError(f"unknown normalizer {name!r}", where="normalizer", remedy=f"use one of {', '.join(NORMALIZERS)}")


def default_normalizer(languages: Iterable[str | None]) -> str:
    """Returns the normalizer for rows in these languages: `basic` unless all rows name one that has its own.

    Only the primary part of a code counts, so `en-US` is `en`. Languages without spaces between words share `nfkc`.
    """
    codes = {primary_language(language) for language in languages}
    if len(codes) == 1 and (own := _BY_LANGUAGE.get(next(iter(codes)) or "")):
        return own
    return "nfkc" if codes and codes <= {*UNSPACED} else "basic"


def primary_language(language: str | None) -> str | None:
    """The primary part of a language code, two letters where there are: `en` of `en-US` and of `eng`."""
    code = re.split("[-_]", language.strip().lower())[0] if language else None
    return _TWO_LETTERS.get(code or "", code)


def visible(text: str) -> str:
    """A text without the characters of `INVISIBLE`."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def straight_apostrophes(text: str) -> str:
    """A text with ' for curly apostrophes and their like inside words; quotation marks stay."""
    return text if text.isascii() and "`" not in text else _APOSTROPHE.sub("'", text)


def spoken_kana(text: str) -> str:
    """The kana of a text as they sound: katakana, long vowels with their mark; whatever is no kana is left out.

    `きんとう`, `キントウ` and `キントー` are all `キントー`: Open JTalk, dictionaries and people differ in how they
    write long vowels, and a recogniser that hears sounds cannot know which of them is meant.

    A vowel after a kana of the same vowel counts as long, and so do おう and えい, which in a few words are two vowels
    (思う). Particles stand as written: は is not ワ.
    """
    spoken: list[str] = []
    vowel = ""
    for kana in _katakana(text).translate(_SAME_SOUND):
        if (kana == _LONG and vowel) or (vowel, kana) in _LENGTHENED:
            spoken.append(_LONG)
        elif kana != _LONG:
            spoken.append(kana)
            vowel = _VOWEL_OF.get(kana, "")
    return "".join(spoken)


def _whisper_en(text: str) -> str:
    return _in_english(text, *_english()).strip()


def _open_asr_en(text: str) -> str:
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


@cache
def _basic() -> Callable[[str], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from whisper_normalizer.basic import BasicTextNormalizer
    normalizer = BasicTextNormalizer(remove_diacritics=False)
    # Its own step drops combining marks; `preserve_marks` exists only in later versions than the one we ask for.
    normalizer.clean = _without_symbols
    return lambda text: normalizer(text.translate(_VOICING_MARKS)).strip()


def _without_symbols(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text)
    return "".join(" " if unicodedata.category(char)[0] in "SP" else char for char in composed)


def _nfkc_ja(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text.translate(_VOICING_MARKS)).lower()
    # C: control and format characters, among them tabs, line ends and zero-width spaces.
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "PSZC")


def _until_stable(step: Callable[[str], str], text: str) -> str:
    """Repeats `step`, because removing a character can bring two others together that compose."""
    for _ in range(_MAX_PASSES):
        result = step(text)
        if result == text:
            break
        text = result
    return text


def _katakana(text: str) -> str:
    full = unicodedata.normalize("NFKC", text)
    shifted = (chr(ord(each) + 0x60) if "ぁ" <= each <= "ゖ" else each for each in full)
    return "".join(each for each in shifted if "ァ" <= each <= "ヺ" or each == _LONG)
