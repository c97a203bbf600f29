"""From tokens of a decoder to the characters of a CTC head."""

import codecs
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from kikitori.errors import ModelError
from kikitori.text.forms.japanese import is_spoken_kana
from kikitori.text.token_bytes import TokenBytes
from kikitori.text.units import WORD_MARK, TokenizerUnits

SPACE, APOSTROPHE = " ", "'"
APOSTROPHES = frozenset("'’‘`")


class Place(NamedTuple):
    """Where in its text a hypothesis stands.

    Attributes:
        pending: What is written if a letter follows: a space, an apostrophe or nothing.
        bytes: The beginning of a character that is not complete.
    """

    pending: str
    bytes: bytes


class Spelling(NamedTuple):
    """What a token adds behind a place: CTC labels, None if CTC cannot write it, and the place behind it."""

    labels: tuple[int, ...] | None
    place: Place


class TokenSpeller:
    """From tokens of a decoder to the characters of a CTC head.

    Args:
        units: Those of the decoder.
        characters: Those of the CTC head, single characters and a word mark.

    Raises:
        ModelError: The CTC head writes longer units, or kana as they sound, which no token of kanji is spelt with.
    """

    def __init__(self, units: TokenizerUnits, characters: TokenizerUnits) -> None:
        special = {characters.bos_id, characters.eos_id, characters.tokenizer.unk_token_id}
        names = characters.tokenizer.convert_ids_to_tokens(list(range(characters.size)))
        self._label = {name: label for label, name in enumerate(names) if label not in special}
        if longer := [name for name in self._label if len(name) != 1]:
            raise ModelError(
                f"the CTC head writes units of several characters such as {longer[0]!r}, and the decoder others",
                remedy="train a head over characters (units.kind: characters)",
            )
        if is_spoken_kana(self._label):
            raise ModelError(
                "the CTC head writes kana as they sound, and the decoder kanji too",
                remedy="use lexicon, rescoring behind lexicon, or greedy",
            )
        self._tokens = TokenBytes(units)
        # Whether apostrophes count inside of words alone, and words begin with the mark wherever they stand.
        self._quotes_free = APOSTROPHE in self._label and characters.normalize("a '") == "a"
        first = next((name for name in names if name in self._label and name.isalpha()), "")
        marked = WORD_MARK in self._label and characters.encode(first)[:1] == [self._label[WORD_MARK]]
        self.start = Place(SPACE if marked else "", b"")
        self._known: dict[tuple[Place, int], Spelling] = {}

    def spell(self, place: Place, token: int) -> Spelling:
        """What a token adds behind a place."""
        key = place, token
        if key not in self._known:
            self._known[key] = self._spell(place, token)
        return self._known[key]

    def letters(self, tokens: Sequence[int]) -> list[int] | None:
        """CTC labels of a whole hypothesis; None if CTC cannot write it."""
        place, labels = self.start, list[int]()
        for token in tokens:
            added, place = self.spell(place, token)
            if added is None:
                return None
            labels += added
        return labels

    def text(self, tokens: Sequence[int]) -> tuple[object, ...]:
        """What all hypotheses have in common that CTC writes alike: their letters, else the tokens."""
        letters = self.letters(tokens)
        return (None, *tokens) if letters is None else tuple(letters)

    def point(self, tokens: Sequence[int]) -> tuple[object, ...]:
        """The same with where in the text they stand, so that whatever follows adds the same letters."""
        place = self.start
        for token in tokens:
            place = self.spell(place, token).place
        return (place, *self.text(tokens))

    def _spell(self, place: Place, token: int) -> Spelling:
        content = self._tokens.of(token)
        if content is None:
            return Spelling(None, place)
        reader = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = reader.decode(place.bytes + content)
        pending, labels = place.pending, []
        for character in text:
            for letter in self._letters(character):
                if letter is None:
                    return Spelling(None, place)
                if letter == SPACE:
                    pending = SPACE
                elif letter == APOSTROPHE and self._quotes_free:
                    pending = pending or APOSTROPHE
                else:
                    labels += [self._label[each] for each in self._written(pending)]
                    labels.append(self._label[letter])
                    pending = ""
        return Spelling(tuple(labels), Place(pending, reader.getstate()[0]))

    def _written(self, pending: str) -> str:
        if pending == SPACE:
            return WORD_MARK if WORD_MARK in self._label else ""
        return pending

    def _letters(self, character: str) -> list[str | None]:
        """What a character of a text is to CTC: letters, a space for what separates words, None for the impossible."""
        if character.isspace() or character == WORD_MARK:
            return [SPACE]
        if self._quotes_free and character in APOSTROPHES:
            return [APOSTROPHE]
        if character in self._label:
            return [character]
        plain = unicodedata.normalize("NFKD", character).lower()
        folded = [each for each in plain if not unicodedata.combining(each)]
        if all(each in self._label for each in folded):
            return [*folded]
        return [None] if any(each.isalnum() for each in folded) else [SPACE]
