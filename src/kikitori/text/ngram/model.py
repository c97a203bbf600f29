"""Back-off n-grams (Katz 1987) as an automaton in arrays, which compiled code walks.

States are the words before, arcs the words behind. State 0 is the empty context and has an arc for every word; every
other state knows the state with its oldest word dropped, and the back-off weight that it costs to go there. The words
are those of a language, or a recogniser's label units as its tokenizer spells them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner
from kikitori.errors import ModelError
from kikitori.text.ngram.arpa import END, START, UNKNOWN, NGrams, read_arpa
from kikitori.text.ngram.packed import SUFFIX, read_packed

LN10 = log(10.0)


class Automaton(NamedTuple):
    """States and arcs, as compiled code takes them.

    Attributes:
        starts: (states + 1) int64; the arcs of state s are [starts[s], starts[s + 1]), ascending by word.
        arc_words: (arcs) int32.
        arc_scores: (arcs) float32, natural log-probabilities.
        arc_targets: (arcs) int32, the state after the word.
        backoffs: (states) float32, natural logarithms of the weights.
        lower: (states) int32, the state with the oldest word dropped. State 0, the empty context, has an arc for every
            word, in the order of their numbers.
    """

    starts: NDArray[np.int64]
    arc_words: NDArray[np.int32]
    arc_scores: NDArray[np.float32]
    arc_targets: NDArray[np.int32]
    backoffs: NDArray[np.float32]
    lower: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class NGram:
    """A back-off n-gram language model over numbered words; it begins in the state after `<s>`.

    Among the words are `<s>`, `</s>` and `<unk>`, which stands for all others.
    """

    words: tuple[str, ...]
    automaton: Automaton
    start: int

    @cached_property
    def ids(self) -> dict[str, int]:
        """The numbers of the words."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def end(self) -> int:
        """The number of `</s>`."""
        return self.ids[END]

    def numbers(self, words: Iterable[str]) -> list[int]:
        """The numbers of some words; unknown ones, and the names of a sentence's ends, are `<unk>`."""
        unknown = self.ids[UNKNOWN]
        return [unknown if word in (START, END) else self.ids.get(word, unknown) for word in words]


@compiled
def advance(automaton: Automaton, state: int, word: int) -> tuple[float, int]:
    """The natural log-probability of a word behind a state, and the state after it."""
    score = 0.0
    while True:
        arc = _arc(automaton, state, word)
        if arc >= 0:
            return score + automaton.arc_scores[arc], int(automaton.arc_targets[arc])
        score += automaton.backoffs[state]
        state = int(automaton.lower[state])


@compiled
def append(
    automaton: Automaton,
    states: NDArray[np.int64],
    words: NDArray[np.int64],
    lengths: NDArray[np.int64],
    given: NDArray[np.float64],
) -> None:
    """Takes words (rows, n), of which so many count in each row (`lengths`), behind states (rows,), which are replaced.

    `given` (rows, n) receives the natural log-probabilities.
    """
    for row in range(len(states)):
        state = states[row]
        for place in range(lengths[row]):
            given[row, place], state = advance(automaton, state, words[row, place])
        states[row] = state


@compiled
def following(
    automaton: Automaton, states: NDArray[np.int64], words: NDArray[np.int64], found: NDArray[np.float64]
) -> None:
    """Natural log-probabilities of some words (words,) behind each of some states (rows,), to `found` (rows, words)."""
    starts, arc_words, arc_scores, _, backoffs, lower = automaton
    scores = np.empty(starts[1], np.float64)
    for row in range(len(states)):
        depth, state, cost = 0, states[row], 0.0
        while state != 0:
            cost += backoffs[state]
            state = lower[state]
            depth += 1
        for word in range(len(scores)):
            scores[word] = cost + arc_scores[word]
        for level in range(depth - 1, -1, -1):  # longer contexts take the place of shorter ones
            state, cost = states[row], 0.0
            for _ in range(level):
                cost += backoffs[state]
                state = lower[state]
            for arc in range(starts[state], starts[state + 1]):
                scores[arc_words[arc]] = cost + arc_scores[arc]
        for place in range(len(words)):
            found[row, place] = scores[words[place]]


def fold(ngrams: Sequence[NGrams], words: Sequence[str]) -> NGram:
    """N-grams by order (of `kneser_ney.estimate`, `read_arpa` or `read_packed`) as arrays to walk.

    A state is an n-gram that something follows, or that leaves its context at a price. What cannot be followed needs
    no state: the longest of its endings that is one takes its place.
    """
    owners, states = [], []  # of the arcs by order: the state that each leaves, and the one that it is, else -1
    own, num_states = np.zeros(1, np.int32), 1
    for n, each in enumerate(ngrams, start=1):
        owners.append(own[each.prefixes])
        followed = np.zeros(len(each.last), bool)
        if n < len(ngrams):
            followed[ngrams[n].prefixes] = True
        is_state = followed | (each.log10_backoffs != 0)
        own = np.where(is_state, num_states - 1 + np.cumsum(is_state), -1).astype(np.int32)
        num_states += int(is_state.sum())
        states.append(own)
    owner, state = np.concatenate(owners), np.concatenate(states)
    backoffs = np.zeros(num_states, np.float32)
    backoffs[state[state >= 0]] = (LN10 * np.concatenate([each.log10_backoffs for each in ngrams]))[state >= 0]
    starts = np.searchsorted(owner, np.arange(num_states + 1)).astype(np.int64)
    arc_words = np.concatenate([each.last for each in ngrams]).astype(np.int32)
    arc_scores = (LN10 * np.concatenate([each.log10_probs for each in ngrams])).astype(np.float32)
    targets, lower = np.zeros(len(owner), np.int32), np.zeros(num_states, np.int32)
    automaton = Automaton(starts, arc_words, arc_scores, targets, backoffs, lower)
    _link(automaton, owner, state)
    return NGram(tuple(words), automaton, int(targets[list(words).index(START)]))


def score_text(ngram: NGram, words: Sequence[str]) -> float:
    """The natural log-probability of a sentence and its end; unknown words count as `<unk>`."""
    total, state = 0.0, ngram.start
    for number in [*ngram.numbers(words), ngram.end]:
        log_prob, state = _advance(ngram.automaton, state, number)
        total += log_prob
    return total


def load_ngram(path: str | Path) -> NGram:
    """Reads an n-gram: `.ngram`, `.arpa`, `.arpa.gz` or `.arpa.xz`.

    Raises:
        ModelError: It is missing, damaged, unsound or a binary file of KenLM.
    """
    path = Path(path)
    if path.suffix == ".bin":
        raise ModelError("a binary file of KenLM", where=path, remedy="name the ARPA file that it was made from")
    if not path.is_file():
        raise ModelError("no such file with an n-gram", where=path, remedy="make one with kikitori ngram")
    return fold(*(read_packed(path) if path.suffix == SUFFIX else read_arpa(path)))


def _advance(automaton: Automaton, state: int, word: int) -> tuple[float, int]:
    """As `advance`, in plain Python."""
    score = 0.0
    while True:
        first, last = automaton.starts[state : state + 2].tolist()
        arc = first + int(np.searchsorted(automaton.arc_words[first:last], word))
        if arc < last and automaton.arc_words[arc] == word:
            return score + float(automaton.arc_scores[arc]), int(automaton.arc_targets[arc])
        score += float(automaton.backoffs[state])
        state = int(automaton.lower[state])


@compiled
def _link(automaton: Automaton, owners: NDArray[np.int32], states: NDArray[np.int32]) -> None:
    """Fills in where arcs lead and where states back off to; what is needed of shorter n-grams is there by then.

    An arc whose score is NaN gets that of backing off.
    """
    _, arc_words, arc_scores, targets, backoffs, lower = automaton
    for arc in range(len(owners)):
        state, word, below, cost = owners[arc], arc_words[arc], 0, np.float32(0.0)
        while state != 0:
            cost += backoffs[state]
            state = lower[state]
            shorter = _arc(automaton, state, word)
            if shorter >= 0:
                below = targets[shorter]
                if np.isnan(arc_scores[arc]):
                    arc_scores[arc] = cost + arc_scores[shorter]
                break
        targets[arc] = below
        if states[arc] >= 0:
            lower[states[arc]] = below
            targets[arc] = states[arc]


@inner
def _arc(automaton: Automaton, state: int, word: int) -> int:
    """Where the arc of a word behind a state is; -1 where there is none."""
    starts, arc_words = automaton.starts, automaton.arc_words
    if state == 0:
        return word
    low, high = starts[state], starts[state + 1]
    while low < high:
        middle = (low + high) // 2
        if arc_words[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low < starts[state + 1] and arc_words[low] == word:
        return int(low)
    return -1
