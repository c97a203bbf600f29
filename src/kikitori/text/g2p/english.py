"""English words that are formed of others: endings, a few beginnings, British spellings, compounds.

A dictionary that has `signal` says how `signals`, `signal's`, `signalling` and `signalman` are said more surely than
letter-to-sound rules do. docs/lexicon.md has the share of words that each kind gets right.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kikitori.text.g2p.dictionary import ARPABET_VOWELS, bare, unstressed_vowels_marked
from kikitori.text.lexicon import Pronunciation

MIN_STEM, MIN_HALF = 3, 4
"""Fewest letters of what an ending or a beginning is added to, and of the halves of a compound."""
_SIBILANTS = frozenset({"s", "z", "sh", "zh", "ch", "jh"})
_VOICELESS = frozenset({"p", "t", "k", "f", "th", "s", "sh", "ch"})
BRITISH = tuple(
    (re.compile(british), american)
    for british, american in (
        (r"is(e|ation)$", r"iz\1"),
        (r"yse$", "yze"),
        (r"our", "or"),
        (r"tre$", "ter"),
        (r"ence$", "ense"),
        (r"logue$", "log"),
    )
)
PREFIXES = {
    "un": ("ah", "n"),
    "over": ("ow", "v", "er"),
    "under": ("ah", "n", "d", "er"),
    "out": ("aw", "t"),
    "dis": ("d", "ih", "s"),
}


class EnglishWords:
    """Words formed of others that a dictionary (in lower case, ARPAbet) has.

    Compounds are made of the words that a lexicon is made for (`listed`) alone: dictionaries have so many rare names
    that nearly any word could be two of them.
    """

    name = "english"

    def __init__(self, dictionary: Mapping[str, tuple[Pronunciation, ...]], listed: Collection[str]) -> None:
        self._dictionary = dictionary
        self._listed = frozenset(listed)

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """Pronunciations of the words that are formed in a way known here; those of the stem give as many."""
        found = ((word, self.formed(word) or self.compound(word)) for word in words)
        return {word: ways for word, ways in found if ways}

    def formed(self, word: str) -> tuple[Pronunciation, ...]:
        """Of a word as the dictionary has it, or formed; an ending may be added to what has one."""
        if word in self._dictionary:
            return self._dictionary[word]
        for ending in ENDINGS:
            stem = word.removesuffix(ending.letters)
            if len(stem) < max(len(word) - len(ending.letters), MIN_STEM) or stem == word:
                continue
            for base in ending.bases(stem):
                if ways := tuple(joined for way in self.formed(base) if (joined := ending.join(way))):
                    return ways
        for letters, phones in PREFIXES.items():
            rest = word.removeprefix(letters)
            if rest != word and len(rest) > MIN_STEM and (ways := self.formed(rest)):
                return tuple((*_like(phones, way), *way) for way in ways)
        return next((self._dictionary[other] for other in _american(word) if other in self._dictionary), ())

    def compound(self, word: str) -> tuple[Pronunciation, ...]:
        """The two words nearest in length that make the word."""
        cuts = sorted(range(MIN_HALF, len(word) - MIN_HALF + 1), key=lambda cut: abs(2 * cut - len(word)))
        for cut in cuts:
            halves = word[:cut], word[cut:]
            if all(half in self._listed and half in self._dictionary for half in halves):
                first, second = (self._dictionary[half] for half in halves)
                return ((*first[0], *second[0]),)
        return ()


@dataclass(frozen=True)
class Ending:
    """An ending, what it may have been added to when the rest of a word is given, and how the two are said."""

    letters: str
    bases: Callable[[str], Iterable[str]]
    join: Callable[[Pronunciation], Pronunciation | None]


def _american(word: str) -> Iterator[str]:
    for british, american in BRITISH:
        if (other := british.sub(american, word)) != word:
            yield other


def _same(stem: str) -> Iterator[str]:
    yield stem


def _with_y(stem: str) -> Iterator[str]:
    """Merri(ly): merry."""
    if stem.endswith("i"):
        yield f"{stem[:-1]}y"
    yield stem


def _with_e(stem: str) -> Iterator[str]:
    """Stopp(ed), hop(ed), carri(ed), call(ed), travell(ed): stop, hope, carry, call, travel."""
    double = stem[-1] == stem[-2]
    if double and stem[-1] not in "sl":
        yield stem[:-1]
    yield f"{stem}e"
    yield from _with_y(stem)
    if double:
        yield stem[:-1]


def _plural(stem: str) -> Iterator[str]:
    """Parti-e(s), horse(s), box-e(s): party, horse, box."""
    if stem.endswith("ie"):
        yield f"{stem[:-2]}y"
    if not stem.endswith(("s", "'")):
        yield stem
        if stem.endswith("e"):
            yield stem[:-1]


def _with_g(stem: str) -> Iterator[str]:
    yield f"{stem}ing"


def _like(phones: Pronunciation, way: Pronunciation) -> Pronunciation:
    """Phones to add to a pronunciation, with marks of stress if that has any."""
    return unstressed_vowels_marked(phones) if any(phone[-1].isdigit() for phone in way) else phones


def _add(*phones: str) -> Callable[[Pronunciation], Pronunciation]:
    return lambda way: (*way, *_like(phones, way))


def _add_s(way: Pronunciation) -> Pronunciation:
    if way[-1] in _SIBILANTS:
        return _add("ih", "z")(way)
    return (*way, "s" if way[-1] in _VOICELESS else "z")


def _add_d(way: Pronunciation) -> Pronunciation:
    if way[-1] in {"t", "d"}:
        return _add("ih", "d")(way)
    return (*way, "t" if way[-1] in _VOICELESS else "d")


def _add_ly(way: Pronunciation) -> Pronunciation:
    return _add("l", "iy")(way[:-1] if way[-1] == "l" else way)


def _add_edly(way: Pronunciation) -> Pronunciation:
    """Resigned, hurried: resignedly, with a syllable more, and hurriedly."""
    return _add("d", "l", "iy")(way) if bare(way[-1]) in ARPABET_VOWELS else _add("ih", "d", "l", "iy")(way)


def _le_to_ly(way: Pronunciation) -> Pronunciation | None:
    return _add("l", "iy")(way[:-2]) if way[-1] == "l" and bare(way[-2]) == "ah" else None


def _ing_to_in(way: Pronunciation) -> Pronunciation | None:
    return (*way[:-1], "n") if way[-1] == "ng" else None


ENDINGS: tuple[Ending, ...] = (
    Ending("'s", _same, _add_s),
    Ending("s", _plural, _add_s),
    Ending("'d", _with_e, _add_d),
    Ending("ed", _with_e, _add_d),
    Ending("ing", _with_e, _add("ih", "ng")),
    Ending("in", _with_g, _ing_to_in),
    Ending("edly", _with_e, _add_edly),
    Ending("ly", lambda stem: (f"{stem}le",), _le_to_ly),
    Ending("ly", _with_y, _add_ly),
    Ending("ness", _with_y, _add("n", "ah", "s")),
    Ending("less", _with_y, _add("l", "ah", "s")),
    Ending("ful", _with_y, _add("f", "ah", "l")),
    Ending("able", _with_e, _add("ah", "b", "ah", "l")),
    Ending("ment", _same, _add("m", "ah", "n", "t")),
    Ending("man", _same, _add("m", "ah", "n")),
    Ending("men", _same, _add("m", "ih", "n")),
    Ending("er", _with_e, _add("er")),
    Ending("est", _with_e, _add("ah", "s", "t")),
    Ending("eth", _with_e, _add("ih", "th")),
    Ending("ish", _with_e, _add("ih", "sh")),
)
