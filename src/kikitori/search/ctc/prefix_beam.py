"""CTC prefix beam search (Hannun et al. 2014), compiled: a time-synchronous beam of the nodes of a prefix tree.

`advance` takes one frame and leaves the survivors in the beam (`prefix_tree`); nodes are made for survivors only. What
another scorer adds is the node's `bonus`: it counts in pruning, and either enters with the frame (`label_gains`, before
pruning) or is written into `bonus` between frames (after pruning).

Log-probabilities count from a `base`, so that a frame without candidates costs next to nothing.
"""

from math import exp, inf, log1p

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner, kth_largest
from kikitori.search.ctc.prefix_tree import NONE, Floats, Ints, PrefixBeam, Records, find_child, new_node, reserve

NEGLIGIBLE = 40.0  # exp(-40) is less than float64 resolves beside 1


@inner
def combine(one: float, other: float, use_sum: bool) -> float:
    """Recombination of two sets of paths: log(exp(one) + exp(other)), or the larger."""
    high, low = (one, other) if one > other else (other, one)
    if not use_sum or low == -inf or high - low > NEGLIGIBLE:
        return high
    return high + log1p(exp(low - high))


@compiled
def advance(
    state: PrefixBeam,
    labels: Ints,
    log_probs: Floats,
    blank: float,
    label_gains: Floats,
    limit: int,
    score_beam: float,
    use_sum: bool,
) -> None:
    """One frame: every hypothesis stays, repeats its last label or is extended; the best survive.

    At most `limit` do, and rank at most `score_beam` below the best; equal ranks are decided for the older hypothesis,
    then for the lower label. Paths of a label sequence are summed, or the best counts. `label_gains` (hypotheses,
    candidates), or empty, is what other scorers add. The state must have room (`reserve`), and changes in place.
    """
    if len(labels) == 0:
        skip(state.counts, state.beam, blank)
        return
    for place in range(len(labels)):
        state.seen[labels[place]] = place + 1
    floor = _stay(state, log_probs, blank, limit, score_beam, use_sum)
    contenders = _extend(state, labels, log_probs, label_gains, floor, score_beam)
    for place in range(len(labels)):
        state.seen[labels[place]] = 0
    _survive(state, contenders, limit, score_beam)


@inner
def skip(counts: Records, beam: Records, blank: float) -> None:
    """One frame in which only blank is possible."""
    counts[0]["base"] += blank
    for slot in range(counts[0]["entries"]):
        entry = beam[slot]
        entry["blank"] = entry["total"]
        entry["last"] = -inf


@inner
def _stay(state: PrefixBeam, log_probs: Floats, blank: float, limit: int, score_beam: float, use_sum: bool) -> float:
    """Contenders with the label sequences of the beam; returns the rank that others need."""
    tree, beam, seen = state.tree, state.beam, state.seen
    entries = state.counts[0]["entries"]
    best, worst = -inf, inf
    for slot in range(entries):
        entry, contender = beam[slot], state.pool[slot]
        node = tree[entry["node"]]
        label, last = node["label"], -inf
        place = seen[label] - 1
        if place >= 0:
            last = entry["last"] + log_probs[place]
            above = tree[node["parent"]]["slot"]
            if above >= 0:
                # Behind an equal label only a blank tells two labels from one.
                equal = tree[beam[above]["node"]]["label"] == label
                paths = beam[above]["blank"] if equal else beam[above]["total"]
                last = combine(last, paths + log_probs[place], use_sum)
        through_blank = entry["total"] + blank
        total = combine(through_blank, last, use_sum)
        rank = total + node["bonus"]
        contender["node"] = entry["node"]
        contender["blank"], contender["last"], contender["total"] = through_blank, last, total
        contender["rank"] = rank
        best, worst = max(best, rank), min(worst, rank)
    return max(best - score_beam, worst) if entries >= limit else best - score_beam


@inner
def _extend(
    state: PrefixBeam, labels: Ints, log_probs: Floats, label_gains: Floats, floor: float, score_beam: float
) -> int:
    """Contenders one label longer than the beam; returns how many contenders there are in all."""
    tree, fused = state.tree, len(label_gains) > 0
    entries: int = state.counts[0]["entries"]
    contenders = entries
    most = log_probs.max()
    for slot in range(entries):
        entry = state.beam[slot]
        node = tree[entry["node"]]
        total, bonus = entry["total"], node["bonus"]
        if not fused and not total + most + bonus >= floor:
            continue
        for place in range(len(labels)):
            label = labels[place]
            last = (entry["blank"] if label == node["label"] else total) + log_probs[place]
            gained = bonus + label_gains[slot, place] if fused else bonus
            rank = last + gained
            if rank == -inf or not rank >= floor:
                continue
            child = find_child(tree, entry["node"], label)
            if child != NONE:
                if tree[child]["slot"] != NONE:
                    continue  # in the beam, so `_stay` has these paths
                gained = tree[child]["bonus"]
                rank = last + gained
            contender = state.pool[contenders]
            contender["parent"], contender["node"], contender["label"] = entry["node"], child, label
            contender["bonus"], contender["rank"] = gained, rank
            contender["blank"], contender["last"], contender["total"] = -inf, last, last
            contenders += 1
            floor = max(floor, rank - score_beam)
    return contenders


@inner
def _survive(state: PrefixBeam, contenders: int, limit: int, score_beam: float) -> None:
    """The best contenders become the beam."""
    tree, beam, pool, ranks = state.tree, state.beam, state.pool, state.ranks
    best, possible = -inf, 0
    for place in range(contenders):
        best = max(best, pool[place]["rank"])
    floor = best - score_beam
    for place in range(contenders):
        rank = pool[place]["rank"]
        if rank >= floor and rank > -inf:
            ranks[possible] = rank
            possible += 1
    ties = possible
    if possible > limit:
        floor = kth_largest(ranks[:possible], limit)
        ties = limit
        for place in range(contenders):
            ties -= pool[place]["rank"] > floor
    for slot in range(state.counts[0]["entries"]):
        tree[beam[slot]["node"]]["slot"] = NONE
    survivors = 0
    for place in range(contenders):
        contender = pool[place]
        rank = contender["rank"]
        if not rank >= floor or rank == -inf:
            continue
        if rank == floor:
            if ties == 0:
                continue
            ties -= 1
        node = contender["node"]
        if node == NONE:
            node = new_node(state, contender["parent"], contender["label"], contender["bonus"])
        tree[node]["slot"] = survivors
        entry = beam[survivors]
        entry["node"] = node
        entry["blank"], entry["last"], entry["total"] = contender["blank"], contender["last"], contender["total"]
        survivors += 1
    state.counts[0]["entries"] = survivors


@compiled
def search(
    state: PrefixBeam,
    offsets: NDArray[np.int64],
    labels: Ints,
    log_probs: Floats,
    blank: Floats,
    limit: int,
    score_beam: float,
    use_sum: bool,
) -> PrefixBeam:
    """All frames of an utterance without other scorers, as `advance` takes them; the beam's arrays may be new ones.

    Candidates of all frames come one frame after the other, those of each from its offset (frames + 1,) on.
    """
    no_gains = np.zeros((0, 0), np.float64)
    for frame in range(len(blank)):
        start, stop = offsets[frame], offsets[frame + 1]
        if start == stop:
            skip(state.counts, state.beam, blank[frame])
            continue
        state = reserve(state, stop - start, limit)
        advance(state, labels[start:stop], log_probs[start:stop], blank[frame], no_gains, limit, score_beam, use_sum)
    return state
