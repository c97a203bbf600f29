"""N-gram language models as scorers: label by label in a search, or of whole hypotheses.

Words of the n-gram are strings: the recogniser's labels as its tokenizer spells them (`▁the`), or whole words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.text.forms.text_form import TextForm, in_form
from kikitori.text.ngram.arpa import END, START, UNKNOWN, writable
from kikitori.text.ngram.model import NGram, append, following, score_text
from kikitori.text.ngram.packed import SUFFIX as PACKED
from kikitori.text.units import WORD_MARK, TokenizerUnits
from kikitori.text.words import check_coverage
from kikitori.types import Hypothesis

SUFFIXES = (".arpa", ".arpa.gz", ".arpa.xz", PACKED, ".bin")
"""The last is KenLM's, which `load_ngram` refuses with a remedy."""
WORD_MARKS = (WORD_MARK, "Ġ")
"""What stands for the space before a word in SentencePiece and in byte-level BPE."""
MANY_WORDS = 10
"""Different words of which an n-gram must know one: else it is in another form than the texts."""


def is_ngram(path_or_id: str) -> bool:
    """Whether a name is that of an n-gram's file, and not of a folder or a model on the hub."""
    return path_or_id.endswith(SUFFIXES)


def label_words(units: TokenizerUnits) -> list[str]:
    """What each label is called in an n-gram's file, in the order of the labels.

    That is how the tokenizer spells it; the ends of a sentence are `<s>` and `</s>` whatever the units call them. What
    the file format cannot hold is unknown.
    """
    words = [str(word) for word in units.tokenizer.convert_ids_to_tokens([*range(units.size)])]
    if units.bos_id is not None:
        words[units.bos_id] = START
    words[units.eos_id] = END
    return [word if writable(word) else UNKNOWN for word in words]


def knows_labels(ngram: NGram, words: Sequence[str]) -> bool:
    """Whether an n-gram is over some labels: it knows half of them, and one that begins a word.

    Pieces and characters may be words of a language too, but not with a mark.
    """
    beginnings = [word for word in words if set(WORD_MARKS) & set(word)]
    return 2 * _num_known(ngram, words) >= len(words) and (not beginnings or _num_known(ngram, beginnings) > 0)


def _num_known(ngram: NGram, words: Sequence[str]) -> int:
    return sum(word in ngram.ids and word != UNKNOWN for word in words)


@dataclass(frozen=True, eq=False)
class NGramState:
    """The state of the n-gram after each hypothesis of an `NGramScorer`, (rows,)."""

    states: NDArray[np.int64]


class NGramScorer:
    """An n-gram over the label units of a search, whose labels are called as `label_words` says.

    Raises:
        ModelError: The n-gram is over other words than the labels.
    """

    def __init__(self, ngram: NGram, words: Sequence[str], *, name: str = "ngram", where: object = None) -> None:
        if not knows_labels(ngram, words):
            raise ModelError(
                f"the n-gram is over other words: it knows {_num_known(ngram, words)} of the recogniser's "
                f"{len(words)} labels, which are such as {words[len(words) // 2]!r}",
                where=where,
                remedy="make one over its labels with kikitori ngram --model RECOGNISER",
            )
        self.name = name
        self.max_labels: int | None = None
        """None: hypotheses may have any length."""
        unknown = ngram.ids[UNKNOWN]
        self._ngram = ngram
        self._numbers = np.array([ngram.ids.get(word, unknown) for word in (*words, END)], np.int64)

    def start(self, batch: int) -> NGramState:
        """The beginning of a sentence."""
        return NGramState(np.full(batch, self._ngram.start, np.int64))

    def log_probs(self, state: NGramState, rows: Tensor) -> Tensor:
        """Of each label behind some hypotheses and of their end, (rows, labels + 1), float64 on the CPU."""
        states = state.states[rows.numpy(force=True)]
        found = np.empty((len(states), len(self._numbers)))
        following(self._ngram.automaton, states, self._numbers, found)
        return torch.from_numpy(found)

    def extend(self, state: NGramState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[NGramState, Tensor]:
        """Hypotheses with more labels, and the log-probabilities of these, (rows, n) float64."""
        states, given = state.states[rows.numpy(force=True)], np.zeros(tuple(labels.shape))
        words = np.ascontiguousarray(self._numbers[labels.numpy(force=True)])
        append(self._ngram.automaton, states, words, np.ascontiguousarray(lengths.numpy(force=True)), given)
        return NGramState(states), torch.from_numpy(given)


@dataclass(frozen=True, eq=False)
class NGramSequenceScorer:
    """An n-gram as a scorer of whole hypotheses: by their labels where it is over these, else by the words of texts.

    Attributes:
        units: The units of the hypotheses' labels; None goes by their texts.
        text_form: Form that texts get before they are split at spaces.
    """

    name: str
    ngram: NGram
    units: TokenizerUnits | None
    text_form: TextForm = "as_is"
    where: object = None

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of some utterances, its end included.

        Raises:
            DataError: It knows hardly any of many words.
            ModelError: It knows none of many words, so that its text must have had another form.
        """
        names = None if self.units is None else label_words(self.units)
        if names is None or not self._is_over(names):
            spelled = [[in_form(each.text, self.text_form).split() for each in nbest] for nbest in nbests]
        else:
            spelled = [[[names[label] for label in each.labels] for each in nbest] for nbest in nbests]
        self._check({word for nbest in spelled for words in nbest for word in words})
        return [[score_text(self.ngram, words) for words in nbest] for nbest in spelled]

    def _is_over(self, names: Sequence[str]) -> bool:
        """Whether its words are labels: the characters of Japanese labels may all be words of a word n-gram too."""
        words = self.ngram.ids.keys()
        return knows_labels(self.ngram, names) and 2 * len(words & {*names, START, END, UNKNOWN}) >= len(words)

    def _check(self, words: set[str]) -> None:
        if len(words) >= MANY_WORDS and not words & self.ngram.ids.keys():
            raise ModelError(
                f"the n-gram has none of the {len(words)} words of the hypotheses, which are such as {min(words)!r}",
                where=self.where,
                remedy="choose the text_form of the text that it was made from",
            )
        if len(words) >= MANY_WORDS:
            check_coverage(
                words, self.ngram.ids.keys(), what="words of the hypotheses and the n-gram", where=self.where
            )
