"""The CTC head beside a decoder with other units: a token of the decoder counts by the letters that it is spelt with.

CTC labels are characters, the decoder's tokens are pieces of words, with case, punctuation and spaces of their own. A
token's letters go through the CTC prefix score one after the other; what CTC does not write (punctuation, case) is
free, and what it cannot write (digits, other scripts) is impossible. A token may end inside a word, and even inside a
character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from kikitori.scorers.ctc.prefix import CTCPrefixScorer
from kikitori.scorers.ctc.prefix_kernel import Prefixes
from kikitori.scorers.ctc.speller import Place, TokenSpeller


@dataclass(frozen=True, eq=False)
class SpelledState:
    """Hypotheses of a `SpelledCTCScorer`: their prefix scores, and where in its text each stands."""

    prefixes: Prefixes
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
        _, each = self._append(state, [old for old, _ in wanted], [letters for _, letters in wanted])
        for score, places in zip(each.sum(dim=1).tolist(), wanted.values(), strict=True):
            for place in places:
                found[place] = score
        return found

    def likeliest(self, state: SpelledState, rows: Tensor, most: int) -> Tensor:  # noqa: ARG002
        """None: (rows, most) of -1. The decoder knows which of the tokens that sound alike stands here."""
        return torch.full((len(rows), most), -1)

    def extend(self, state: SpelledState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[SpelledState, Tensor]:
        """A new state of some hypotheses with more tokens, and what is given to these, (rows, n) float64."""
        places, spelt, ends = [], [], []
        for old, tokens, count in zip(rows.tolist(), labels.tolist(), lengths.tolist(), strict=True):
            place, letters, parts = state.places[old], list[int](), list[int | None]()
            for token in tokens[:count]:
                added, place = self._speller.spell(place, token)
                letters += [] if added is None else added
                parts.append(None if added is None else len(letters))
            places.append(place)
            spelt.append(tuple(letters))
            ends.append(parts)
        prefixes, each = self._append(state, rows.tolist(), spelt)
        given = torch.zeros(labels.shape, dtype=torch.float64)
        sums = torch.nn.functional.pad(each.cumsum(dim=1), (1, 0))
        for row, parts in enumerate(ends):
            before = 0
            for column, end in enumerate(parts):
                given[row, column] = -inf if end is None else sums[row, end] - sums[row, before]
                before = before if end is None else end
        return SpelledState(prefixes, tuple(places)), given

    def _append(
        self, state: SpelledState, rows: Sequence[int], letters: Sequence[Sequence[int]]
    ) -> tuple[Prefixes, Tensor]:
        """Hypotheses with more letters, and what is given to each letter, (rows, longest)."""
        lengths = torch.tensor([len(each) for each in letters], dtype=torch.int64)
        padded = torch.zeros(len(letters), max((len(each) for each in letters), default=0), dtype=torch.int64)
        for row, each in zip(padded, letters, strict=True):
            row[: len(each)] = torch.tensor(each, dtype=torch.int64)
        return self._letters.extend(state.prefixes, torch.tensor(rows, dtype=torch.int64), padded, lengths)
