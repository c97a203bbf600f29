"""The CTC head beside a decoder with other units: a token of the decoder counts by the letters that it is spelt with.

CTC labels are characters, the decoder's tokens are pieces of words, with case, punctuation and spaces of their own. A
token's letters go through the CTC prefix score one after the other; what CTC does not write (punctuation, case) is free,
and what it cannot write (digits, other scripts) is impossible. A token may end inside a word, and even inside a
character.
"""

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kikitori.errors import ModelError
from kikitori.scorers.ctc.prefix import CTCPrefixScorer, PrefixState
from kikitori.text.token_bytes import token_bytes
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
        ModelError: The CTC head writes longer units.
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
        self._bytes = token_bytes(units)
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

    def _spell(self, place: Place, token: int) -> Spelling:
        if (content := self._bytes[token]) is None:
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


@dataclass(frozen=True, eq=False)
class SpelledState:
    """Hypotheses of a `SpelledCTCScorer`: their prefix scores, and where in its text each stands."""

    prefixes: PrefixState
    places: tuple[Place, ...]


class SpelledCTCScorer:
    """CTC prefix probabilities of a decoder's tokens, a `CandidateScorer`.

    Of the letters l of the text behind a hypothesis and those of a token, m: log p(l m ...) - log p(l ...). Several
    tokens may have the same letters, so these do not sum to one over the vocabulary.

    Args:
        letters: The prefix scores over characters.
        speller: What tokens are spelt with.
        num_tokens: Labels of the decoder.
    """

    def __init__(self, letters: CTCPrefixScorer, speller: TokenSpeller, num_tokens: int) -> None:
        self.name = letters.name
        self._letters, self._speller, self._num_tokens = letters, speller, num_tokens

    def start(self, batch: int) -> SpelledState:
        """A state of so many empty hypotheses, one for each utterance."""
        return SpelledState(self._letters.start(batch), (self._speller.start,) * batch)

    def log_probs(self, state: SpelledState, rows: Tensor) -> Tensor:
        """What it gives to every token and to the end, (rows, tokens + 1) float64; slow, since all are spelt."""
        return self.log_probs_of(state, rows, torch.arange(self._num_tokens).expand(len(rows), -1))

    def log_probs_of(self, state: SpelledState, rows: Tensor, labels: Tensor) -> Tensor:
        """What it gives to some tokens (rows, n), -1 for none, and to the end: (rows, n + 1), -inf for none."""
        found = torch.full((len(rows), labels.shape[1] + 1), -inf, dtype=torch.float64)
        empty = torch.empty(len(rows), 0, dtype=torch.int64)
        found[:, -1] = self._letters.log_probs_of(state.prefixes, rows, empty)[:, 0]
        wanted: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
        for row, (old, tokens) in enumerate(zip(rows.tolist(), labels.tolist(), strict=True)):
            for column, token in enumerate(tokens):
                if token >= 0 and (spelt := self._speller.spell(state.places[old], token).labels) is not None:
                    wanted.setdefault((old, spelt), []).append((row, column))
        asked = [key for key in wanted if key[1]]
        given = dict(zip(asked, self._append(state, *zip(*asked, strict=True))[1].tolist(), strict=True)) if asked else {}
        for key, places in wanted.items():
            for place in places:
                found[place] = given.get(key, 0.0)
        return found

    def likeliest(self, state: SpelledState, rows: Tensor, most: int) -> Tensor:  # noqa: ARG002
        """None: (rows, most) of -1. The decoder knows which of the tokens that sound alike stands here."""
        return torch.full((len(rows), most), -1)

    def extend(self, state: SpelledState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[SpelledState, Tensor]:
        """A new state of some hypotheses with more tokens, and what is given to these, (rows, n) float64."""
        places, spelt, ends = [], [], []
        for old, tokens, count in zip(rows.tolist(), labels.tolist(), lengths.tolist(), strict=True):
            place, letters, parts = state.places[old], [], []
            for token in tokens[:count]:
                added, place = self._speller.spell(place, token)
                letters += [] if added is None else added
                parts.append(None if added is None else len(letters))
            places.append(place)
            spelt.append(tuple(letters))
            ends.append(parts)
        prefixes, each = self._extend(state, rows.tolist(), spelt)
        given, sums = torch.zeros(labels.shape, dtype=torch.float64), torch.nn.functional.pad(each.cumsum(dim=1), (1, 0))
        for row, parts in enumerate(ends):
            before = 0
            for column, end in enumerate(parts):
                given[row, column] = -inf if end is None else sums[row, end] - sums[row, before]
                before = before if end is None else end
        return SpelledState(prefixes, tuple(places)), given

    def _append(
        self, state: SpelledState, rows: Sequence[int], letters: Sequence[Sequence[int]]
    ) -> tuple[PrefixState, Tensor]:
        """Hypotheses with more letters, and what is given to all of these together, (rows,)."""
        prefixes, each = self._extend(state, rows, letters)
        return prefixes, each.sum(dim=1)

    def _extend(
        self, state: SpelledState, rows: Sequence[int], letters: Sequence[Sequence[int]]
    ) -> tuple[PrefixState, Tensor]:
        lengths = torch.tensor([len(each) for each in letters], dtype=torch.int64)
        padded: Any = pad_sequence([torch.tensor(each, dtype=torch.int64) for each in letters], batch_first=True)
        return self._letters.extend(state.prefixes, torch.tensor(rows), padded, lengths)
