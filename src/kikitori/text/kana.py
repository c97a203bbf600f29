"""Japanese readings: kana as they sound, so that all ways of writing the same sounds are one.

`きんとう`, `キントウ` and `キントー` are all `キントー`. Open JTalk, dictionaries and people differ in how they write
long vowels; a recogniser that hears sounds cannot know which of them is meant.
"""

import unicodedata

LONG = "ー"
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


def spoken_kana(text: str) -> str:
    """The kana of a text as they sound: katakana, long vowels with their mark; whatever is no kana is left out.

    A vowel after a kana of the same vowel counts as long, and so do おう and えい, which in a few words are two vowels
    (思う). Particles stand as written: は is not ワ.
    """
    spoken: list[str] = []
    vowel = ""
    for kana in _katakana(text).translate(_SAME_SOUND):
        if (kana == LONG and vowel) or (vowel, kana) in _LENGTHENED:
            spoken.append(LONG)
        elif kana != LONG:
            spoken.append(kana)
            vowel = _VOWEL_OF.get(kana, "")
    return "".join(spoken)


def _katakana(text: str) -> str:
    full = unicodedata.normalize("NFKC", text)
    shifted = (chr(ord(each) + 0x60) if "ぁ" <= each <= "ゖ" else each for each in full)
    return "".join(each for each in shifted if "ァ" <= each <= "ヺ" or each == LONG)
