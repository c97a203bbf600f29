"""Lexicon trees: prefix trees of pronunciations with words at their nodes, and a word n-gram.

The tree has a root behind every phone and one at the beginning of a sentence, all with the same children: where the
next word begins, CTC must know the phone before, since two equal phones need a blank between them. Every node knows the
best unigram among the words below it, so that a search can charge for a word from its first phone on (LM look-ahead,
Ney et al. 1992; "smearing" in flashlight and Julius).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import ModelError
from kikitori.text.lexicon import Lexicon, numbered
from kikitori.text.ngram.arpa import END, START, UNKNOWN
from kikitori.text.ngram.model import Automaton, NGram
from kikitori.text.words import check_coverage


class Trie(NamedTuple):
    """A tree of phones; the nodes 0 to `phones` are its roots, behind each phone and (the last) behind nothing.

    Attributes:
        phones: Last phone of each node, (nodes,); the number of phones, which is the blank, for the last root.
        first: First child of each node, (nodes,); children stand side by side, ascending by phone.
        stop: What follows the last one, (nodes,).
        word_starts: Where the words of each node begin, (nodes + 1,).
        words: Those that are complete at the nodes, one node after the other.
        lookahead: The highest unigram log-probability among the words of each node and below, (nodes,); 0 for roots.
        peaks: What none of these words exceeds, whatever stands before it, (nodes,).
        width: Most hypotheses that one at a node can become with the next phone, (nodes,).
    """

    phones: NDArray[np.int32]
    first: NDArray[np.int32]
    stop: NDArray[np.int32]
    word_starts: NDArray[np.int32]
    words: NDArray[np.int32]
    lookahead: NDArray[np.float64]
    peaks: NDArray[np.float64]
    width: NDArray[np.int32]


class Grammar(NamedTuple):
    """A word n-gram, and of each word of a lexicon its number there and what is added to its score, (words,)."""

    automaton: Automaton
    ids: NDArray[np.int32]
    extra: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WordModel:
    """What turns phones into words: numbered words, their pronunciations, and what they score behind each other.

    `start` is the n-gram's state at the beginning of a sentence, `end` its word that ends one.
    """

    words: tuple[str, ...]
    num_phones: int
    trie: Trie
    grammar: Grammar
    start: int
    end: int


def word_model(
    lexicon: Lexicon, phones: Sequence[str], ngram: NGram, *, unknown_score: float = 0.0, where: object = "lexicon"
) -> WordModel:
    """A lexicon and an n-gram over words in the same form, made ready for search over numbered phones.

    `unknown_score` is added to the log-probability of `<unk>` for words that the n-gram has not; without `<unk>` they
    are left out.

    Raises:
        DataError: The n-gram knows hardly any of the words.
        ModelError: A pronunciation has other phones, or the n-gram knows none of the words.
    """
    unknown = ngram.ids.get(UNKNOWN)
    numbers = {phone: number for number, phone in enumerate(phones)}
    words: list[str] = []
    ids: list[int] = []
    ways: list[tuple[int, tuple[int, ...]]] = []
    for word, pronunciations in numbered(lexicon, numbers, where).items():
        known = ngram.ids.get(word, unknown)
        if known is None:
            continue
        number = len(words)
        ways += [(number, way) for way in dict.fromkeys(pronunciations)]
        words.append(word)
        ids.append(known)
    if not any(word in ngram.ids for word in words):
        raise ModelError("the n-gram has none of its words", where=where, remedy="give both the same form of words")
    written = [word for word in ngram.words if word not in (START, END, UNKNOWN)]
    check_coverage(words, written, what="words of the lexicon and of the n-gram", where=where)
    taken, extra = np.array(ids, np.int32), np.zeros(len(ids))
    extra[[word not in ngram.ids for word in words]] = unknown_score
    unigrams = ngram.automaton.arc_scores[taken].astype(np.float64) + extra
    trie = _trie(ways, unigrams, _peaks(ngram.automaton)[taken] + extra, len(phones))
    return WordModel(tuple(words), len(phones), trie, Grammar(ngram.automaton, taken, extra), ngram.start, ngram.end)


def _peaks(automaton: Automaton) -> NDArray[np.float64]:
    """What no word exceeds behind any others, (words,): its best arc, reached from where backing off gains most."""
    peaks = np.full(automaton.starts[1], -np.inf)
    np.maximum.at(peaks, automaton.arc_words, automaton.arc_scores)
    gained, state, most = automaton.backoffs.astype(np.float64), automaton.lower, 0.0
    while state.any():
        most = max(most, float(gained.max()))
        gained, state = gained + automaton.backoffs[state], automaton.lower[state]
    return peaks + max(most, float(gained.max()))


def _trie(
    ways: Sequence[tuple[int, Sequence[int]]],
    unigrams: NDArray[np.float64],
    word_peaks: NDArray[np.float64],
    num_phones: int,
) -> Trie:
    """The tree of pronunciations, each the number of its word and its phones, level by level."""
    lengths = np.array([len(way) for _, way in ways])
    table = np.full((len(ways), lengths.max()), -1, np.int32)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate([way for _, way in ways])
    order = np.lexsort(table.T[::-1])
    table, lengths, words = table[order], lengths[order], np.array([word for word, _ in ways], np.int32)[order]
    num_nodes = num_phones + 1
    phones, parents, at = [np.arange(num_nodes)], [np.full(num_nodes, -1)], np.full(len(ways), num_phones)
    levels = []
    for depth in range(table.shape[1]):
        # Rows are in the order of their phones, so those of a node stand together, and its children do.
        rows = np.flatnonzero(lengths > depth)
        above, phone = at[rows], table[rows, depth]
        new = np.concatenate([[True], (above[1:] != above[:-1]) | (phone[1:] != phone[:-1])])
        at[rows] = num_nodes + new.cumsum() - 1
        phones.append(phone[new])
        parents.append(above[new])
        levels.append((rows, at[rows]))
        num_nodes += int(new.sum())
    parent = np.concatenate(parents)
    lookahead, peaks = np.full((2, num_nodes), -np.inf)
    for rows, nodes in levels:
        np.maximum.at(lookahead, nodes, unigrams[words[rows]])
        np.maximum.at(peaks, nodes, word_peaks[words[rows]])
    lookahead[: num_phones + 1], peaks[: num_phones + 1] = 0.0, word_peaks.max()
    inner = np.arange(num_phones + 1, num_nodes)
    first = np.searchsorted(parent[inner], np.arange(num_nodes)) + num_phones + 1
    stop = np.searchsorted(parent[inner], np.arange(num_nodes), "right") + num_phones + 1
    first[:num_phones], stop[:num_phones] = first[num_phones], stop[num_phones]
    word_starts = np.searchsorted(np.sort(at), np.arange(num_nodes + 1))
    ways_on = np.concatenate([[0], (1 + np.diff(word_starts)).cumsum()])
    return Trie(
        phones=np.concatenate(phones).astype(np.int32),
        first=first.astype(np.int32),
        stop=stop.astype(np.int32),
        word_starts=word_starts.astype(np.int32),
        words=words[np.argsort(at, kind="stable")],
        lookahead=lookahead,
        peaks=peaks,
        width=(ways_on[stop] - ways_on[first]).astype(np.int32),
    )
