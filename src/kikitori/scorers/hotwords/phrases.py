"""Lists of hotwords: names and terms that recordings may hold, as letters and in the labels of a CTC head."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kikitori.errors import ConfigError, KikitoriWarning
from kikitori.scorers.hotwords.letters import BORDER, letter, letters_of, unit_letters
from kikitori.scorers.hotwords.spotting import PhraseTrie, phrase_trie, spot
from kikitori.text.corpus import read_lines
from kikitori.text.normalize import visible
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import writes_spaces

MOST_PHRASES = 10_000
MOST_LETTERS = 200
LEAST_EVIDENCE = -3.2
"""Phrases with less of it, for each letter but two, are not searched for: two letters are found by chance anywhere."""
MOST_EVIDENT = 100
"""Of those with more, so many of an utterance are: the most evident ones."""
_SHOWN = 5  # of what is left out, so many are named


@dataclass(frozen=True, eq=False)
class Hotwords:
    """Phrases that a CTC head can write.

    Attributes:
        letters: Of each phrase, as `letters_of` gives them.
        trie: The same in the labels of the CTC head.
        borders: Labels of the CTC head that begin another word; none without `spaced`.
        spaced: Whether words have spaces between them, so that phrases begin and end with words.
    """

    letters: tuple[str, ...]
    trie: PhraseTrie
    borders: NDArray[np.int64]
    spaced: bool

    def evident(self, logits: Tensor, lengths: Tensor) -> list[list[str]]:
        """The letters of the phrases for which there is evidence in each utterance, best first.

        Args:
            logits: Of the CTC head, (utterances, frames, labels + 1), blank last.
            lengths: Valid frames, (utterances,).
        """
        found = []
        for row, length in zip(logits, lengths.tolist(), strict=True):
            evidence = spot(self.trie, row[:length], LEAST_EVIDENCE, self.borders)
            order = np.argsort(-evidence, kind="stable")[:MOST_EVIDENT].tolist()
            found.append([self.letters[phrase] for phrase in order if evidence[phrase] > -np.inf])
        return found


def read_hotwords(file: Path) -> tuple[str, ...]:
    """The phrases of a UTF-8 text file, one a line; empty lines count for nothing.

    Raises:
        DataError: There is no such file, or it is not UTF-8 text.
        ConfigError: It holds no phrase, more than 10,000, or one that is too long.
    """
    phrases = tuple(dict.fromkeys(read_lines(file)))
    check_phrases(phrases, file)
    return phrases


def check_phrases(phrases: Sequence[str], where: object = "hotwords") -> None:
    """Refuses a list of no phrase, or of more than 10,000, or one with a phrase of more than 200 letters.

    Raises:
        ConfigError: It is one.
    """
    if not phrases:
        raise ConfigError("no hotwords: there is no phrase", where=where, remedy="write one a line")
    if len(phrases) > MOST_PHRASES:
        what = f"{len(phrases)} hotwords are more than {MOST_PHRASES}"
        raise ConfigError(what, where=where, remedy="leave out what the recordings cannot hold")
    for phrase in phrases:
        number = len(letters_of(phrase, spaced=False))
        if number > MOST_LETTERS:
            what = f"{number} letters are no phrase: {phrase[:30]!r}..."
            raise ConfigError(what, where=where, remedy=f"write phrases of at most {MOST_LETTERS}")


@lru_cache(maxsize=8)
def compile_hotwords(phrases: tuple[str, ...], units: TokenizerUnits, language: str | None) -> Hotwords:
    """Phrases for a CTC head with some units; known by these arguments, the last ones are kept.

    Case, accents and punctuation do not matter: a phrase is its letters. What the units cannot write, such as digits
    where they hold letters alone, is left out with a warning that names the characters.

    Args:
        phrases: As somebody would write them.
        units: Those of the CTC head.
        language: Code of the language of the transcripts; without one, words have spaces between them.

    Raises:
        ConfigError: There are no phrases, too many, too long ones, or none that the units can write.
    """
    check_phrases(phrases)
    spaced = writes_spaces(language)
    written: dict[str, list[Sequence[int]]] = {}
    unwritten: dict[str, None] = {}
    left_out = list[str]()
    for phrase in phrases:
        letters = letters_of(phrase, spaced=spaced)
        spelt = [_spelt(character, units) for character in visible(phrase)]
        unwritten.update((c, None) for c, text in zip(visible(phrase), spelt, strict=True) if text is None)
        text = "".join(each or "" for each in spelt).strip()
        if not letters.strip() or None in spelt or not text:
            left_out.append(phrase)
        else:
            written.setdefault(letters, []).extend(_spellings(text, units, spaced=spaced))
    if left_out:
        _complain(left_out, [*unwritten], num_phrases=len(phrases))
    borders = np.flatnonzero(unit_letters(units).begins_word) if spaced else np.empty(0, np.int64)
    return Hotwords(tuple(written), phrase_trie([*written.values()], [*map(_size, written)]), borders, spaced)


def _size(letters: str) -> float:
    """By how many letters the evidence for a phrase counts."""
    number = len(letters.replace(BORDER, ""))
    return max(number - 2.0, number / 2.0)


def _spellings(text: str, units: TokenizerUnits, *, spaced: bool) -> list[tuple[int, ...]]:
    """The labels of a phrase behind others: a unit may stand for the space before it, and what stands first differ."""
    ways = [tuple(units.encode(text)), tuple(units.encode(f" {text}"))]
    # Without spaces between words, a mark that units put before any text stands nowhere else.
    bare = [] if spaced else [way[1:] for way in ways if not units.decode(way[:1])]
    return [*dict.fromkeys((*ways, *filter(None, bare)))]


@lru_cache(maxsize=4096)
def _spelt(character: str, units: TokenizerUnits) -> str | None:
    """A character as the units can write it, a space for what only separates words; None where they cannot."""
    plain = letter(character)
    for each in (character, plain):
        labels = units.encode(each)
        if each.strip() and units.tokenizer.unk_token_id not in labels and units.decode(labels):
            return each
    return None if plain.strip() else " "


def _complain(left_out: Sequence[str], characters: Sequence[str], *, num_phrases: int) -> None:
    named = " ".join(characters[:20]) + (" ..." if len(characters) > 20 else "")
    why = f"the CTC head cannot write {named}" if characters else "they hold no letters"
    if len(left_out) == num_phrases:
        raise ConfigError(f"none of {num_phrases} can be used: {why}", where="hotwords", remedy="write them in letters")
    shown = ", ".join(repr(each[:40]) for each in left_out[:_SHOWN]) + (", ..." if len(left_out) > _SHOWN else "")
    what = f"hotwords: {len(left_out)} of {num_phrases} are left out ({shown}): {why}"
    warnings.warn(what, KikitoriWarning, stacklevel=4)
