"""Named text normalizers, applied to references and predictions alike before anything is counted.

Raw text goes in, the form that is scored comes out. A rate means nothing without the name of its normalizer, so every
report carries it. Normalizing never fails on odd text: recognisers do write odd text.
"""

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

from kikitori.errors import ConfigError
from kikitori.text.forms.english import open_asr_en, whisper_en
from kikitori.text.forms.japanese import VOICING_MARKS, espnet_ja, nfkc_ja, reazon_ja, spoken_kana
from kikitori.text.forms.languages import is_unspaced, primary_language

VERSIONS = {
    "whisper_en": 1,
    "open_asr_en": 1,
    "basic": 1,
    "nfkc": 1,
    "nfkc_ja": 1,
    "reazon_ja": 1,
    "espnet_ja": 1,
    "kana_ja": 1,
    "none": 1,
}
"""Every normalizer, with a number that grows whenever it changes what is scored; reports carry it."""
NORMALIZERS: tuple[str, ...] = tuple(VERSIONS)
WITHOUT_WORDS: tuple[str, ...] = ("nfkc", "nfkc_ja", "reazon_ja", "espnet_ja", "kana_ja")
"""Those that leave no words: errors are counted in characters."""
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
_MAX_PASSES = 10
_CACHED_LENGTH = 400  # so that what is kept stays within some 30 MB


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
    * `reazon_ja`: as ReazonSpeech's evaluation scores: 、。「」『』，,？！!? left out, full-width letters and digits as
      half-width ones, numbers in kanji as they are read. White space does not count; capitals do.
    * `espnet_ja`: as ESPnet's Japanese recipes score: the characters themselves, white space and case aside.
    * `kana_ja`: the kana of a Japanese reading as they sound (`spoken_kana`); whatever is no kana is lost.
    * `none`: the text itself.

    All but `none` leave out characters that cannot be seen, and take curly apostrophes inside words for straight ones.

    Raises:
        ConfigError: No normalizer has that name.
    """
    return _cached(name, text) if len(text) <= _CACHED_LENGTH else _normalize(name, text)


def default_normalizer(languages: Iterable[str | None]) -> str:
    """Returns the normalizer for rows in these languages: `basic` unless all rows name one that has its own.

    Only the primary part of a code counts, so `en-US` is `en`. Languages without spaces between words share `nfkc`.
    """
    codes = {primary_language(language) for language in languages}
    if len(codes) == 1 and (own := _BY_LANGUAGE.get(next(iter(codes)) or "")):
        return own
    return "nfkc" if codes and all(map(is_unspaced, codes)) else "basic"


def versions_of(names: str) -> dict[str, int]:
    """The versions of a normalizer, or of several (or none) with commas between."""
    return {name: VERSIONS[name] for name in names.split(", ") if name}


def versioned(names: str) -> str:
    """The same as a text: `whisper_en 1`."""
    return ", ".join(f"{name} {version}" for name, version in versions_of(names).items())


def visible(text: str) -> str:
    """A text without the characters of `INVISIBLE`."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def straight_apostrophes(text: str) -> str:
    """A text with ' for curly apostrophes and their like inside words; quotation marks stay."""
    return text if text.isascii() and "`" not in text else _APOSTROPHE.sub("'", text)


def _normalize(name: str, text: str) -> str:
    if name != "none":
        text = straight_apostrophes(visible(text))
    match name:
        case "whisper_en":
            return whisper_en(text)
        case "open_asr_en":
            return open_asr_en(text)
        case "basic":
            return _until_stable(_basic(), text)
        case "nfkc" | "nfkc_ja":
            return _until_stable(nfkc_ja, text)
        case "reazon_ja":
            return _until_stable(lambda each: straight_apostrophes(reazon_ja(each)), text)
        case "espnet_ja":
            return _until_stable(lambda each: straight_apostrophes(espnet_ja(each)), text)
        case "kana_ja":
            return spoken_kana(text)
        case "none":
            return text
    raise ConfigError(f"unknown normalizer {name!r}", where="normalizer", remedy=f"use one of {', '.join(NORMALIZERS)}")


# A report normalises each text for its counts and again for its alignments, a comparison the references of each system.
_cached = lru_cache(maxsize=1 << 15)(_normalize)


@cache
def _basic() -> Callable[[str], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from whisper_normalizer.basic import BasicTextNormalizer
    normalizer = BasicTextNormalizer(remove_diacritics=False)
    # Its own step drops combining marks; `preserve_marks` exists only in later versions than the one we ask for.
    normalizer.clean = _without_symbols
    return lambda text: normalizer(text.translate(VOICING_MARKS)).strip()


def _without_symbols(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text)
    return "".join(" " if unicodedata.category(char)[0] in "SP" else char for char in composed)


def _until_stable(step: Callable[[str], str], text: str) -> str:
    """Repeats `step`, because removing a character can bring two others together that compose."""
    for _ in range(_MAX_PASSES):
        result = step(text)
        if result == text:
            break
        text = result
    return text


def check_leaves_something(name: str, texts: Iterable[str], where: str) -> None:
    """Refuses a form that leaves nothing of any text, such as kana of English: whatever is written would be right.

    Raises:
        ConfigError: It does so; texts that are empty themselves do not count.
    """
    texts = [text for text in texts if text.strip()]
    if texts and not any(normalize(name, text) for text in texts):
        what = f"'{name}' leaves nothing of the texts of {where}"
        raise ConfigError(what, where="--normalizer", remedy="choose another form")
