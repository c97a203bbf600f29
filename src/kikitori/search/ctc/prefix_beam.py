"""CTC prefix beam search (Hannun et al. 2014), compiled: a prefix tree and a time-synchronous beam of its nodes.

A hypothesis is a node of the tree, that is, a label sequence; it holds the log-probability of its paths that end in
blank and of those that end in its last label (Graves et al. 2006). `advance` takes one frame and
leaves the survivors in the beam; nodes are made for survivors only. What another scorer adds is the node's `bonus`: it
counts in pruning, and either enters with the frame (`label_gains`, before pruning) or is written into `bonus` between
frames (after pruning).

Log-probabilities count from a `base`, so that a frame without candidates costs next to nothing.
"""

from math import exp, inf, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner, kth_largest

ROOT = 0
NONE = -1
NEGLIGIBLE = 40.0  # exp(-40) is less than float64 resolves beside 1

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Records = NDArray[np.void]

# Few arrays of records rather than many arrays, since every call counts references to each array.
NODE = np.dtype(
    [
        ("parent", np.int32),  # node above; NONE for the root
        ("label", np.int32),  # last label; the blank's id for the root
        ("child", np.int32),  # youngest child, or NONE
        ("sibling", np.int32),  # next older child of the same parent, or NONE
        ("slot", np.int32),  # place in the beam, NONE outside it
        ("bonus", np.float64),  # what other scorers add to the rank
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("node", np.int32),
        ("blank", np.float64),  # log-probability of the paths that end in blank
        ("last", np.float64),  # and of those that end in the last label
        ("total", np.float64),  # and of both
    ],
    align=True,
)
CONTENDER = np.dtype(
    [
        ("parent", np.int32),
        ("node", np.int32),  # NONE for one to be made, with the label and bonus that follow
        ("label", np.int32),
        ("bonus", np.float64),
        ("blank", np.float64),
        ("last", np.float64),
        ("total", np.float64),
        ("rank", np.float64),  # total and bonus
    ],
    align=True,
)
COUNTS = np.dtype([("nodes", np.int64), ("entries", np.int64), ("base", np.float64)])


class PrefixBeam(NamedTuple):
    """Tree, beam and scratch space; arrays are longer than what is used of them.

    Attributes:
        tree: Every prefix that was ever in the beam, of `NODE`; the first is the empty one.
        beam: The hypotheses, of `ENTRY`.
        pool: Contenders for the next beam, of `CONTENDER`.
        ranks: Theirs, for quickselect.
        seen: For each label, 1 + its place among the frame's candidates, 0 without.
        counts: How much of tree and beam is used, and what log-probabilities count from, (1,) of `COUNTS`.
    """

    tree: Records
    beam: Records
    pool: Records
    ranks: Floats
    seen: Ints
    counts: Records


def new_beam(num_labels: int, nodes: int = 1024, contenders: int = 1024) -> PrefixBeam:
    """A beam of the empty prefix alone, with room for some nodes and contenders."""
    made = PrefixBeam(
        tree=np.zeros(nodes, NODE),
        beam=np.zeros(contenders, ENTRY),
        pool=np.zeros(contenders, CONTENDER),
        ranks=np.zeros(contenders),
        seen=np.zeros(num_labels + 1, np.int32),
        counts=np.array([(1, 1, 0.0)], COUNTS),
    )
    made.tree[ROOT] = (NONE, num_labels, NONE, NONE, 0, 0.0)
    made.beam[0] = (ROOT, 0.0, -inf, 0.0)
    return made


@compiled
def reserve(state: PrefixBeam, candidates: int, limit: int) -> PrefixBeam:
    """The beam with room for one more frame with so many candidates; its arrays may be new ones."""
    tree, beam, pool, ranks, seen, counts = state
    nodes, entries = counts[0]["nodes"], counts[0]["entries"]
    need_nodes = nodes + min(limit, entries * candidates)
    need_pool = entries * (candidates + 1)
    if need_nodes > len(tree):
        tree = enlarged(tree, max(need_nodes, 2 * len(tree)))
    if need_pool > len(pool):
        size = max(need_pool, 2 * len(pool))
        beam, pool, ranks = enlarged(beam, size), enlarged(pool, size), np.empty(size)
    return PrefixBeam(tree, beam, pool, ranks, seen, counts)


@inner
def enlarged(records: Records, size: int) -> Records:
    """Records with room for more behind them."""
    roomier = np.empty(size, records.dtype)
    for place in range(len(records)):
        roomier[place] = records[place]
    return roomier


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
            node = _new_node(state, contender["parent"], contender["label"], contender["bonus"])
        tree[node]["slot"] = survivors
        entry = beam[survivors]
        entry["node"] = node
        entry["blank"], entry["last"], entry["total"] = contender["blank"], contender["last"], contender["total"]
        survivors += 1
    state.counts[0]["entries"] = survivors


@inner
def find_child(tree: Records, node: int, label: int) -> int:
    """The node one label longer, NONE if there is none."""
    child: int = tree[node]["child"]
    while child != NONE and tree[child]["label"] != label:
        child = tree[child]["sibling"]
    return child


@inner
def _new_node(state: PrefixBeam, parent: int, label: int, bonus: float) -> int:
    made: int = state.counts[0]["nodes"]
    node = state.tree[made]
    node["parent"], node["label"], node["bonus"] = parent, label, bonus
    node["child"], node["sibling"] = NONE, state.tree[parent]["child"]
    state.tree[parent]["child"] = made
    state.counts[0]["nodes"] = made + 1
    return made


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


@compiled
def trace_back(tree: Records, nodes: Ints) -> tuple[NDArray[np.int64], Ints]:
    """Label sequences of some nodes: where each begins, (nodes + 1,), and all labels, one node after the other."""
    offsets = np.zeros(len(nodes) + 1, np.int64)
    for place in range(len(nodes)):
        node, length = nodes[place], 0
        while node != ROOT:
            node, length = tree[node]["parent"], length + 1
        offsets[place + 1] = offsets[place] + length
    labels = np.empty(offsets[-1], np.int32)
    for place in range(len(nodes)):
        node, end = nodes[place], offsets[place + 1]
        while node != ROOT:
            end -= 1
            labels[end] = tree[node]["label"]
            node = tree[node]["parent"]
    return offsets, labels
