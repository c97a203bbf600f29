"""N-gram language models through KenLM (Heafield 2011), an extra: `pip install 'kikitori[ngram]'`.

Words of the n-gram are strings: the recogniser's labels as its tokenizer spells them (`▁the`), or whole words. A file
is an ARPA file or a binary file of KenLM; the latter is memory that KenLM maps as it is, so take it from where you
would take a program.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.scorers.tree import TreeScores
from kikitori.text.ngram.arpa import END, START, UNKNOWN, writable
from kikitori.text.ngram.model import WordNGram, load_word_ngram, score_text
from kikitori.text.ngram.packed import SUFFIX as PACKED
from kikitori.text.units import WORD_MARK, TextForm, TokenizerUnits, in_form
from kikitori.types import Hypothesis

SUFFIXES = (".arpa", ".arpa.gz", ".bin", PACKED)
LN10 = log(10.0)
WORD_MARKS = (WORD_MARK, "Ġ")
"""What stands for the space before a word in SentencePiece and in byte-level BPE."""
_REASON = re.compile(r"threw \w+(?: because .*?)?\. (.*)")
CACHED = 2**23
"""Log-probabilities that a scorer remembers."""


def is_ngram(path_or_id: str) -> bool:
    """Whether a name is that of an n-gram's file, and not of a folder or a model on the hub."""
    return path_or_id.endswith(SUFFIXES)


def load_ngram(file: str | Path) -> Any:
    """Reads an ARPA file or a binary file of KenLM; a `kenlm.Model`.

    Raises:
        ModelError: KenLM is not installed, or the file is missing, damaged or not for it.
    """
    if str(file).endswith(PACKED):
        raise ModelError(
            "an n-gram over words, and here labels are asked for", where=file, remedy="use it in rescoring"
        )
    try:
        import kenlm
    except ImportError:
        raise ModelError("n-grams need KenLM", where=file, remedy="pip install 'kikitori[ngram]'") from None
    if not Path(file).is_file():
        raise ModelError("no such file with an n-gram", where=file, remedy="make one with kikitori ngram")
    settings = kenlm.Config()
    settings.show_progress, settings.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(file), settings)
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        if found := _REASON.search(reason):  # behind the name of a function of C++
            reason = found[1]
        raise ModelError(f"KenLM cannot read it ({reason[:200]})", where=file, remedy="make it again") from None


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


def knows_labels(model: Any, words: Sequence[str]) -> bool:
    """Whether an n-gram of `load_ngram` is over some labels: it knows half of them, and one that begins a word.

    Pieces and characters may be words of a language too, but not with a mark.
    """
    beginnings = [word for word in words if set(WORD_MARKS) & set(word)]
    known = sum(word in model for word in words)
    return 2 * known >= len(words) and (not beginnings or any(word in model for word in beginnings))


@dataclass(frozen=True)
class NGramState:
    """Hypotheses of an `NGramScorer`.

    Attributes:
        contexts: What KenLM remembers of each, equal for hypotheses that it cannot tell apart.
    """

    contexts: tuple[Any, ...]


class NGramScorer:
    """An n-gram over the label units of a search.

    Probabilities of all labels are looked up once per context of KenLM, which is as short as the file allows.

    Args:
        model: Of `load_ngram`.
        words: What each label of the search is called, see `label_words`.
        name: Its name among the shares.
        where: Its file, for errors.

    Raises:
        ModelError: The n-gram is over other words than the labels.
    """

    def __init__(self, model: Any, words: Sequence[str], *, name: str = "ngram", where: object = None) -> None:
        import kenlm

        if not knows_labels(model, words):
            raise ModelError(
                f"the n-gram is over other words: it knows {sum(word in model for word in words)} of the recogniser's "
                f"{len(words)} labels, which are such as {words[len(words) // 2]!r}",
                where=where,
                remedy="make one over its labels with kikitori ngram --model RECOGNISER",
            )
        self.name = name
        self.max_labels: int | None = None
        """None: hypotheses may have any length."""
        self._model, self._words, self._new_state = model, tuple(words), kenlm.State
        self._following = lru_cache(max(1, CACHED // (len(words) + 1)))(self._all_following)

    def start(self, batch: int) -> NGramState:
        """The beginning of a sentence."""
        context = self._new_state()
        self._model.BeginSentenceWrite(context)
        return NGramState((context,) * batch)

    def log_probs(self, state: NGramState, rows: Tensor) -> Tensor:
        """As of `Scorer`, in float64 on the CPU."""
        found = [self._following(state.contexts[row]) for row in rows.tolist()]
        return torch.stack(found) if found else torch.zeros(0, len(self._words) + 1, dtype=torch.float64)

    def extend(self, state: NGramState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[NGramState, Tensor]:
        """As of `Scorer`, in float64 on the CPU."""
        given = torch.zeros(labels.shape, dtype=torch.float64)
        contexts = []
        moves = zip(rows.tolist(), labels.tolist(), lengths.tolist(), strict=True)
        for place, (row, appended, length) in enumerate(moves):
            context = state.contexts[row]
            for column, label in enumerate(appended[:length]):
                after = self._new_state()
                given[place, column] = LN10 * self._model.BaseScore(context, self._words[label], after)
                context = after
            contexts.append(context)
        return NGramState(tuple(contexts)), given

    def _all_following(self, context: Any) -> Tensor:
        score, after = self._model.BaseScore, self._new_state()
        return LN10 * torch.tensor([score(context, word, after) for word in (*self._words, END)], dtype=torch.float64)


class NGramJudge:
    """An n-gram that judges whole hypotheses: by their labels where it is over these, else by the words of their text.

    Args:
        model: Of `load_ngram`.
        text_form: Form that texts get before they are split at spaces.
    """

    def __init__(self, model: Any, text_form: TextForm = "as_is") -> None:
        self._model, self._text_form = model, text_form

    def scores(self, nbests: Sequence[Sequence[Hypothesis]], units: TokenizerUnits | None) -> TreeScores:
        """Natural log-probabilities of the hypotheses of some utterances, the end of the sentence included.

        Args:
            nbests: Hypotheses by utterance.
            units: The units of their labels; it goes by these if it knows them (`knows_labels`). None goes by texts.
        """
        names = None if units is None else label_words(units)
        if names is not None and not knows_labels(self._model, names):
            names = None
        spelled = [
            [
                in_form(each.text, self._text_form).split()
                if names is None
                else [names[label] for label in each.labels]
                for each in nbest
            ]
            for nbest in nbests
        ]
        num_words = sum(len(words) for nbest in spelled for words in nbest)
        return TreeScores([[self._score(words) for words in nbest] for nbest in spelled], num_words, num_words)

    def _score(self, words: Sequence[str]) -> float:
        return LN10 * float(self._model.score(" ".join(words)))


class WordJudge:
    """A word n-gram that judges the words of whole hypotheses.

    Args:
        ngram: The n-gram.
        text_form: Form that texts get before they are split at spaces.
    """

    def __init__(self, ngram: WordNGram, text_form: TextForm = "as_is") -> None:
        self._ngram, self._text_form = ngram, text_form

    def scores(self, nbests: Sequence[Sequence[Hypothesis]], units: TokenizerUnits | None) -> TreeScores:  # noqa: ARG002
        """Natural log-probabilities of the texts of some utterances' hypotheses, the end of the sentence included."""
        spelled = [[in_form(each.text, self._text_form).split() for each in nbest] for nbest in nbests]
        num_words = sum(len(words) for nbest in spelled for words in nbest)
        found = [[score_text(self._ngram, words) for words in nbest] for nbest in spelled]
        return TreeScores(found, num_words, num_words)


def load_ngram_judge(path: str, text_form: TextForm = "as_is") -> NGramJudge | WordJudge:
    """An n-gram that judges whole hypotheses: `.ngram` by itself, other files through KenLM.

    Raises:
        ModelError: It is missing or damaged, or KenLM is.
    """
    if path.endswith(PACKED):
        return WordJudge(load_word_ngram(path), text_form)
    return NGramJudge(load_ngram(path), text_form)


@dataclass(frozen=True, eq=False)
class NGramSequenceScorer:
    """An n-gram as a scorer of whole hypotheses, over their labels or the words of their texts.

    Attributes:
        name: Its name among the scores.
        ngram: The n-gram.
        units: The units of the hypotheses' labels; None goes by their texts.
    """

    name: str
    ngram: NGramJudge | WordJudge
    units: TokenizerUnits | None

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of some utterances, its end included."""
        return self.ngram.scores(nbests, self.units).scores
