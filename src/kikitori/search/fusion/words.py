"""Delayed fusion beside a decoder: a language model over other label units judges each word when a label ends it.

    what it adds to a label that begins with no letter: log p_lm(text before it) - what it has added so far; to others 0
    to the end: log p_lm(text, end) - what it has added so far

So the LM's score of what has ended is that of its text, tokenised as a whole, as in rescoring. Until a word is over the
LM has not spoken for it; a beam has to be wide enough for that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kikitori.scorers.ctc.speller import APOSTROPHES
from kikitori.scorers.incremental import IncrementalLMScorer, Tokens
from kikitori.scorers.options import LM
from kikitori.search.fusion.retokenizing import Labels, RetokenizingLM
from kikitori.text.token_bytes import token_bytes


@dataclass(frozen=True)
class _Hypothesis:
    """A hypothesis with the log-probabilities of the LM.

    Attributes:
        utterance: Whose it is.
        labels: What is written.
        added: Of the text up to its last beginning of a word, which has been added.
        text: Of the text.
        ended: Of the text with its end.
    """

    utterance: int
    labels: Labels
    added: float
    text: float
    ended: float


@dataclass(frozen=True, eq=False)
class WordLMState:
    """Hypotheses of a `WordLMScorer`, of `batch` utterances; states of a search share what the LM has read."""

    memory: IncrementalLMScorer
    batch: int
    hypotheses: tuple[_Hypothesis, ...]


class WordLMScorer:
    """A re-tokenising language model as a `Scorer`.

    Args:
        reader: The language model and the label units of the search.
        num_labels: Labels of the search, which these units may have fewer of.
    """

    def __init__(self, reader: RetokenizingLM, num_labels: int, name: str = LM) -> None:
        self.name = name
        self._reader = reader
        self._starts = torch.zeros(num_labels, dtype=torch.bool)
        starts = torch.tensor([_ends_word(content) for content in token_bytes(reader.units)])[:num_labels]
        self._starts[: len(starts)] = starts

    def start(self, batch: int) -> WordLMState:
        """Reads the end of empty texts."""
        memory = IncrementalLMScorer(self._reader.lm, batch)
        ends = memory.ended([[()]] * batch)
        empty = (_Hypothesis(utterance, (), 0.0, 0.0, end) for utterance, (end,) in enumerate(ends))
        return WordLMState(memory, batch, tuple(empty))

    def log_probs(self, state: WordLMState, rows: Tensor) -> Tensor:
        """What it adds to each next label of some hypotheses and to their end, (rows, labels + 1) float64."""
        asked = [state.hypotheses[row] for row in rows.tolist()]
        text = torch.tensor([each.text - each.added for each in asked], dtype=torch.float64)
        end = torch.tensor([each.ended - each.added for each in asked], dtype=torch.float64)
        found = torch.zeros(len(asked), len(self._starts) + 1, dtype=torch.float64)
        found[:, :-1][:, self._starts] = text[:, None]
        found[:, -1] = end
        return found

    def extend(self, state: WordLMState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[WordLMState, Tensor]:
        """A new state of some hypotheses with more labels, and what it adds to these, (rows, n) float64.

        One call of the LM for all of them.
        """
        old = [state.hypotheses[row] for row in rows.tolist()]
        appended = [tuple(new[:size]) for new, size in zip(labels.tolist(), lengths.tolist(), strict=True)]
        # Of each hypothesis the texts before a word and the whole one.
        breaks = [[at for at, label in enumerate(new) if self._starts[label]] for new in appended]
        texts = [
            [(*each.labels, *new[:at]) for at in (*places, len(new))]
            for each, new, places in zip(old, appended, breaks, strict=True)
        ]
        utterances = [each.utterance for each in old]
        scores = self._asked(state.memory.scores, state.batch, utterances, texts)
        ends = self._asked(state.memory.ended, state.batch, utterances, [each[-1:] for each in texts])
        given, hypotheses = torch.zeros(labels.shape, dtype=torch.float64), []
        for row, (each, places) in enumerate(zip(old, breaks, strict=True)):
            added = each.added
            for at, score in zip(places, scores[row], strict=False):
                given[row, at], added = score - added, score
            hypotheses.append(_Hypothesis(each.utterance, texts[row][-1], added, scores[row][-1], *ends[row]))
        return replace(state, hypotheses=tuple(hypotheses)), given

    def _asked(
        self,
        scores: Callable[[list[list[Tokens]]], list[list[float]]],
        batch: int,
        utterances: Sequence[int],
        texts: Sequence[Sequence[Labels]],
    ) -> list[list[float]]:
        """What the LM gives to the texts of some hypotheses, in one call for all utterances."""
        asked: list[list[Tokens]] = [[] for _ in range(batch)]
        for utterance, each in zip(utterances, texts, strict=True):
            asked[utterance] += [self._reader.tokens(labels) for labels in each]
        found = [iter(row) for row in scores(asked)]
        return [[next(found[utterance]) for _ in each] for utterance, each in zip(utterances, texts, strict=True)]


def _ends_word(content: bytes | None) -> bool:
    """Whether what a label begins with is no part of a word, such as a space or a comma."""
    first = (content or b"").decode(errors="replace")[:1]
    return bool(first) and not first.isalnum() and first not in APOSTROPHES
