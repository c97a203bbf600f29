"""Japanese: characters folded as several toolkits fold them, and kana as they sound."""

import re
import string
import unicodedata
from collections.abc import Iterable

VOICING_MARKS = str.maketrans({"\u309b": "\u3099", "\u309c": "\u309a"})
"""Stand-alone voicing marks decompose to a space and a mark; as combining marks they join their kana again."""
_REAZON_PUNCTUATION = str.maketrans(dict.fromkeys("、。「」『』，,？！!?", ""))
_HALF_WIDTH = str.maketrans({chr(ord(c) + 0xFEE0): c for c in string.ascii_letters + string.digits})
_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]*))?")
_DIGITS = "零一二三四五六七八九"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_TENS = ("", "十", "百", "千")
_MYRIADS = (
    *("", "万", "億", "兆", "京", "垓", "秭", "穣", "溝", "澗", "正", "載", "極"),
    *("恒河沙", "阿僧祇", "那由他", "不可思議", "無量大数"),
)
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


def nfkc_ja(text: str) -> str:
    """NFKC in lower case without punctuation, symbols, white space and control characters."""
    folded = unicodedata.normalize("NFKC", text.translate(VOICING_MARKS)).lower()
    # C: control and format characters, among them tabs, line ends and zero-width spaces.
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "PSZC")


def reazon_ja(text: str) -> str:
    """The form of ReazonSpeech's evaluation: no marks or white space, half-width Latin, numbers in kanji."""
    plain = text.translate(_REAZON_PUNCTUATION).translate(_HALF_WIDTH)
    return "".join(_NUMBER.sub(lambda found: kanji_number(*found.groups("")), plain).split())


def espnet_ja(text: str) -> str:
    """The form of ESPnet's Japanese recipes: no white space, and Latin letters in lower case as sclite has them."""
    return "".join(text.split()).translate(_LOWER)


def kanji_number(whole: str, decimals: str = "") -> str:
    """A number in kanji as it is read (`120` is 百二十, `0.50` 零点五), by its digits before and behind the point.

    Zeros that say nothing are lost; a number too large for names is read digit by digit.
    """
    digits = whole.lstrip("0")
    groups = [digits[max(0, end - 4) : end] for end in range(len(digits), 0, -4)]
    if len(groups) > len(_MYRIADS):
        read = "".join(_DIGITS[int(digit)] for digit in digits)
    else:
        parts = [_below_ten_thousand(group) + name for group, name in zip(groups, _MYRIADS, strict=False) if int(group)]
        read = "".join(reversed(parts)) or _DIGITS[0]
    behind = "".join(_DIGITS[int(digit)] for digit in decimals.rstrip("0"))
    return f"{read}点{behind}" if behind else read


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


def is_spoken_kana(characters: Iterable[str]) -> bool:
    """Whether letters are those of `spoken_kana` alone: how words sound, and not how they are written."""
    letters = [each for each in characters if each.isalpha()]
    return bool(letters) and all("ァ" <= each <= "ヺ" or each == _LONG for each in letters)


def _below_ten_thousand(digits: str) -> str:
    read = ""
    for digit, name in zip(digits, _TENS[len(digits) - 1 :: -1], strict=True):
        if digit != "0":
            read += name if digit == "1" and name else _DIGITS[int(digit)] + name
    return read


def _katakana(text: str) -> str:
    full = unicodedata.normalize("NFKC", text)
    shifted = (chr(ord(each) + 0x60) if "ぁ" <= each <= "ゖ" else each for each in full)
    return "".join(each for each in shifted if "ァ" <= each <= "ヺ" or each == _LONG)
