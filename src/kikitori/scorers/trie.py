"""Label sequences merged where they begin alike, for one pass over what they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Trie:
    """Sequences as a tree, whose nodes stand in preorder: all that is below a node follows it directly.

    Attributes:
        members: The sequences that it holds, as places in the list that it was made of.
        labels: The label of each node.
        parents: The node before each; -1 stands for the root, which has no label.
        ends: For each node the first one behind it that is not below it.
        last: For each member its last node; -1 for an empty one.
    """

    members: tuple[int, ...]
    labels: tuple[int, ...]
    parents: tuple[int, ...]
    ends: tuple[int, ...]
    last: tuple[int, ...]


def tries(sequences: Sequence[Sequence[int]], most_nodes: int) -> list[Trie]:
    """The sequences as few tries of at most so many nodes each; a longer sequence has one of its own.

    Each sequence is in one of them; neighbours in the order of the labels are together as far as possible.
    """
    order = sorted(range(len(sequences)), key=lambda place: tuple(sequences[place]))
    groups: list[list[int]] = []
    num_nodes, previous = 0, None
    for place in order:
        new = len(sequences[place]) - (0 if previous is None else _shared(sequences[previous], sequences[place]))
        if previous is None or num_nodes + new > most_nodes:
            groups.append([])
            num_nodes, new = 0, len(sequences[place])
        groups[-1].append(place)
        num_nodes, previous = num_nodes + new, place
    return [_trie(sequences, group) for group in groups]


def _trie(sequences: Sequence[Sequence[int]], members: Sequence[int]) -> Trie:
    """The trie of members that are in the order of their labels."""
    labels: list[int] = []
    parents: list[int] = []
    ends: list[int] = []
    last: list[int] = []
    path: list[int] = []  # nodes of the sequence before
    for place in members:
        sequence = sequences[place]
        kept = _shared([labels[node] for node in path], sequence)
        for node in path[kept:]:
            ends[node] = len(labels)
        del path[kept:]
        for label in sequence[kept:]:
            parents.append(path[-1] if path else -1)
            path.append(len(labels))
            labels.append(label)
            ends.append(0)
        last.append(path[-1] if path else -1)
    for node in path:
        ends[node] = len(labels)
    return Trie(tuple(members), tuple(labels), tuple(parents), tuple(ends), tuple(last))


def _shared(some: Sequence[int], others: Sequence[int]) -> int:
    """Labels that both begin with."""
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
