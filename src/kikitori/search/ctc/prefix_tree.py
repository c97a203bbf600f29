"""What CTC prefix beam search holds: a tree of prefixes, and the beam of its nodes; compiled.

A hypothesis is a node of the tree, that is, a label sequence; it holds the log-probability of its paths that end in
blank and of those that end in its last label (Graves et al. 2006).
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kikitori.compiled import compiled, inner

ROOT = 0
NONE = -1

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
def find_child(tree: Records, node: int, label: int) -> int:
    """The node one label longer, NONE if there is none."""
    child: int = tree[node]["child"]
    while child != NONE and tree[child]["label"] != label:
        child = tree[child]["sibling"]
    return child


@inner
def new_node(state: PrefixBeam, parent: int, label: int, bonus: float) -> int:
    """Makes the node one label longer, for which there must be room."""
    made: int = state.counts[0]["nodes"]
    node = state.tree[made]
    node["parent"], node["label"], node["bonus"] = parent, label, bonus
    node["child"], node["sibling"] = NONE, state.tree[parent]["child"]
    state.tree[parent]["child"] = made
    state.counts[0]["nodes"] = made + 1
    return made


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
