"""Token passing over a lexicon tree, compiled: a time-synchronous CTC beam of word histories and nodes of the tree.

A hypothesis is a word history and a node of the tree; as in prefix search it holds the log-probability of its paths
that end in blank and of those that end in its last phone. The paths of a history at a node are summed. A word is
complete with its last phone: from there its history goes on at the root behind that phone, and the hypothesis that
may still become a longer word at the node, beside it.

Its rank is that sum and a bonus: scaled n-gram score and length of its words, and within a word the tree's lookahead,
which the word's own score replaces (LM look-ahead). What comes behind a history depends on its n-gram state alone, so
tokens with the same state at the same node are recombined: only the best few go on (Viterbi). One that is recombined
remembers into which, and by how much it was worse, from which the n-best list is made whole again.

Log-probabilities count from a `base`, so that a frame without candidates costs next to nothing.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner
from kikitori.search.ctc.prefix_beam import combine, skip
from kikitori.search.ctc.prefix_tree import NONE
from kikitori.search.lexicon.state import Floats, Ints, LexiconBeam, Records, hash_of, reserve, slot_of
from kikitori.search.lexicon.trie import Grammar, Trie
from kikitori.text.ngram.model import advance


class Weights(NamedTuple):
    """What hypotheses are ranked and thinned out by.

    Attributes:
        ngram: What n-gram scores count.
        length: What a word counts.
        limit: Most hypotheses in the beam.
        score_beam: They rank at most so far below the best.
        max_histories: Most with the same n-gram state at the same node; 0 recombines none.
    """

    ngram: float
    length: float
    limit: int
    score_beam: float
    max_histories: int


@compiled
def search(
    state: LexiconBeam,
    trie: Trie,
    grammar: Grammar,
    offsets: NDArray[np.int64],
    phones: Ints,
    log_probs: Floats,
    blank: Floats,
    weights: Weights,
) -> LexiconBeam:
    """All frames of an utterance; returns the beam, best hypotheses first, whose arrays may be new ones.

    Candidates of all frames come one frame after the other, those of each from its offset (frames + 1,) on.
    """
    for frame in range(len(blank)):
        start, stop = offsets[frame], offsets[frame + 1]
        if start == stop:
            skip(state.counts, state.beam, blank[frame])
            continue
        state = reserve(state, trie)
        most = -inf
        for place in range(start, stop):
            state.row[phones[place]] = log_probs[place]
            most = max(most, log_probs[place])
        floor = _stay(state, trie, blank[frame], weights)
        contenders = _extend(state, trie, grammar, most, floor, weights)
        _survive(state, contenders, frame, weights)
        for place in range(start, stop):
            state.row[phones[place]] = -inf
    return state


@inner
def _longer_history(state: LexiconBeam, grammar: Grammar, parent: int, word: int, weights: Weights) -> int:
    """The history with one more word."""
    histories, known = state.histories, state.known
    slot = slot_of(known, histories["parent"], histories["word"], parent, word)
    if known[slot] == NONE:
        above = histories[parent]
        log_prob, target = advance(
            grammar.automaton,
            np.int64(above["state"]),  # type: ignore[arg-type]  # one type, one compilation
            np.int64(grammar.ids[word]),  # type: ignore[arg-type]
        )
        log_prob += grammar.extra[word]
        made = state.counts[0]["histories"]
        new = histories[made]
        new["parent"], new["word"], new["state"] = parent, word, target
        new["recombined_into"], new["frame"], new["score_delta"] = NONE, NONE, -inf
        new["ngram"] = above["ngram"] + log_prob
        new["bonus"] = above["bonus"] + weights.ngram * log_prob + weights.length
        known[slot] = made
        state.counts[0]["histories"] = made + 1
    return int(known[slot])


@inner
def _stay(state: LexiconBeam, trie: Trie, blank: float, weights: Weights) -> float:
    """Contenders that are in the beam; returns the rank that others need."""
    beam, pool, found = state.beam, state.pool, state.found
    entries = state.counts[0]["entries"]
    best, worst = -inf, inf
    for slot in range(entries):
        entry, contender = beam[slot], pool[slot]
        last = entry["last"] + state.row[trie.phones[entry["node"]]]
        through_blank = entry["total"] + blank
        total = combine(through_blank, last, True)
        rank = total + entry["bonus"]
        contender["history"], contender["node"], contender["bonus"] = entry["history"], entry["node"], entry["bonus"]
        contender["blank"], contender["last"], contender["total"] = through_blank, last, total
        contender["rank"] = rank
        contender["slot"] = slot_of(found, pool["history"], pool["node"], entry["history"], entry["node"])
        found[contender["slot"]] = slot
        best, worst = max(best, rank), min(worst, rank)
    # What is below the worst of a full beam cannot enter it: more of the same state never make the beam smaller.
    return max(best - weights.score_beam, worst) if entries >= weights.limit else best - weights.score_beam


@inner
def _extend(state: LexiconBeam, trie: Trie, grammar: Grammar, most: float, floor: float, weights: Weights) -> int:
    """Contenders one phone longer than the beam; returns how many contenders there are in all."""
    contenders: int = state.counts[0]["entries"]
    for slot in range(state.counts[0]["entries"]):
        entry = state.beam[slot]
        history, total, before = entry["history"], entry["total"], entry["blank"]
        phone, bonus = trie.phones[entry["node"]], state.histories[history]["bonus"] + weights.length
        if not total + most + bonus + weights.ngram * trie.peaks[entry["node"]] >= floor:
            continue
        for child in range(trie.first[entry["node"]], trie.stop[entry["node"]]):
            # Behind an equal phone only a blank tells two from one.
            last = (before if trie.phones[child] == phone else total) + state.row[trie.phones[child]]
            if last == -inf or not last + bonus + weights.ngram * trie.peaks[child] >= floor:
                continue
            if trie.first[child] != trie.stop[child]:
                ahead = bonus + weights.ngram * trie.lookahead[child]
                if last + ahead >= floor:
                    contenders = _contend(state, contenders, history, child, last, ahead)
                    floor = max(floor, last + ahead - weights.score_beam)
            for place in range(trie.word_starts[child], trie.word_starts[child + 1]):
                longer = _longer_history(state, grammar, history, trie.words[place], weights)
                behind = state.histories[longer]["bonus"]
                if last + behind >= floor:
                    contenders = _contend(state, contenders, longer, trie.phones[child], last, behind)
                    floor = max(floor, last + behind - weights.score_beam)
    return contenders


@inner
def _contend(state: LexiconBeam, contenders: int, history: int, node: int, last: float, bonus: float) -> int:
    """Adds paths that end in the phone of a node; returns how many contenders there are then."""
    slot = slot_of(state.found, state.pool["history"], state.pool["node"], history, node)
    if state.found[slot] == NONE:
        state.found[slot] = contenders
        new = state.pool[contenders]
        new["history"], new["node"], new["slot"], new["bonus"] = history, node, slot, bonus
        new["blank"], new["last"], new["total"], new["rank"] = -inf, last, last, last + bonus
        return contenders + 1
    contender = state.pool[state.found[slot]]
    contender["last"] = combine(contender["last"], last, True)
    contender["total"] = combine(contender["blank"], contender["last"], True)
    contender["rank"] = contender["total"] + contender["bonus"]
    return contenders


@inner
def _survive(state: LexiconBeam, contenders: int, frame: int, weights: Weights) -> None:
    """The best contenders become the beam, best first; of equal ranks the older first."""
    pool, beam = state.pool, state.beam
    best = -inf
    for place in range(contenders):
        best = max(best, pool[place]["rank"])
        state.found[pool[place]["slot"]] = NONE
    ranks, places, possible = np.empty(contenders), np.empty(contenders, np.int32), 0
    for place in range(contenders):
        rank = pool[place]["rank"]
        if rank >= best - weights.score_beam and rank > -inf:
            ranks[possible], places[possible] = -rank, place
            possible += 1
    order = np.argsort(ranks[:possible], kind="mergesort")
    alike = np.zeros(min(possible, weights.limit), np.int32)
    survivors = 0
    for each in range(possible):
        if survivors == weights.limit:
            break
        contender = pool[places[order[each]]]
        if weights.max_histories:
            slot = _group_of(state, contender)
            best_alike = state.found[slot]
            if best_alike == NONE:
                state.found[slot] = best_alike = survivors
                contender["slot"] = slot
            elif alike[best_alike] == weights.max_histories:
                _recombine(state, contender, beam[best_alike], frame)
                continue
            alike[best_alike] += 1
        beam[survivors] = contender
        survivors += 1
    state.counts[0]["entries"] = survivors
    if weights.max_histories:
        for each in range(survivors):
            state.found[beam[each]["slot"]] = NONE


@inner
def _group_of(state: LexiconBeam, contender: Records) -> int:
    """Where the best survivor with the same n-gram state and node stands in the hash table, or would."""
    found, histories = state.found, state.histories
    mask, node = len(found) - 1, contender["node"]
    grammar = histories[contender["history"]]["state"]
    slot = hash_of(grammar, node) & mask  # type: ignore[arg-type]
    while found[slot] != NONE:
        each = state.beam[found[slot]]
        if each["node"] == node and histories[each["history"]]["state"] == grammar:
            break
        slot = (slot + 1) & mask
    return slot


@inner
def _recombine(state: LexiconBeam, contender: Records, other: Records, frame: int) -> None:
    """Writes down which history goes on in the place of a contender's."""
    history = state.histories[contender["history"]]
    score_delta = contender["rank"] - other["rank"]
    if score_delta > history["score_delta"]:
        history["recombined_into"], history["frame"] = other["history"], frame
        history["score_delta"] = score_delta
