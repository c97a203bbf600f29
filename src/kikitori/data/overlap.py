"""Text that training must not see: sentences that share a run of words with a transcript kept for measuring.

Both sides are compared in lower case without punctuation or accents, with `Mr.` as `mister`, and with hyphens read both
ways: `to-day` is `to day` and `today`. Of languages written without spaces, runs of characters are compared.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kikitori.data.manifest import parse_source, read_manifest
from kikitori.text.corpus import speak_titles
from kikitori.text.forms.languages import UNSPACED_SCRIPTS

RUN_WORDS, RUN_CHARACTERS = 6, 12
_HYPHENS = re.compile("[-\u2010\u2011]")
_APOSTROPHES = re.compile("['’‘`]")
_ASCII_WORD = re.compile("[a-z0-9]+")
_VOICING = "\u3099\u309a"  # the marks of kana, which tell words apart as accents do not

Run = tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """Runs of six words (or twelve characters) of transcripts, or a shorter one: what no training text may share."""

    runs: frozenset[Run] = frozenset()

    def shares(self, text: str) -> bool:
        """Whether a text has such a run in common with the transcripts, or is one of the short ones."""
        return bool(self.runs) and not self.runs.isdisjoint(_runs(text))


def held_out(texts: Iterable[str]) -> HeldOut:
    """What transcripts forbid."""
    return HeldOut(frozenset(run for text in texts for run in _runs(text)))


def read_held_out(sources: Iterable[str]) -> HeldOut:
    """What the transcripts of manifests forbid, each given as `MANIFEST` or `MANIFEST:SPLIT`.

    Raises:
        DataError: A manifest cannot be read or has no row of that split.
    """
    return held_out(text for source in sources for text in _transcripts(source))


def _transcripts(source: str) -> Iterator[str]:
    path, split = parse_source(source)
    return (row.text for row in read_manifest(path, split=split, on_error="skip").utterances if row.text)


def _runs(text: str) -> Iterator[Run]:
    plain = speak_titles(text)
    for reading in dict.fromkeys((plain, _HYPHENS.sub("", plain))):
        words = _words(reading)
        if _is_unspaced(words):
            words, length = list("".join(words)), RUN_CHARACTERS
        else:
            length = RUN_WORDS
        for start in range(max(1, len(words) - length + 1) if words else 0):
            yield tuple(words[start : start + length])


def _words(text: str) -> list[str]:
    if text.isascii():  # the same, in a hundredth of the time
        return _ASCII_WORD.findall(_APOSTROPHES.sub("", text.lower()))
    folded = []
    for character in unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text.casefold())):
        kind = unicodedata.category(character)
        if kind[0] in "LN" or character in _VOICING:
            folded.append(character)
        elif kind[0] != "M":
            folded.append(" ")
    return unicodedata.normalize("NFC", "".join(folded)).split()


def _is_unspaced(words: list[str]) -> bool:
    letters = "".join(words)
    if letters.isascii():
        return False
    found = sum(unicodedata.name(character, "").startswith(UNSPACED_SCRIPTS) for character in letters)
    return 2 * found > len(letters)
