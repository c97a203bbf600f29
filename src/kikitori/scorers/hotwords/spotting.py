"""Keyword spotting by CTC: how well phrases fit anywhere in an utterance, all of a list in one compiled pass.

A phrase's evidence is the log-probability of its best CTC path over the frames of its best place, above that of the
best path of all over the same frames: 0 where greedy decoding writes just that, else below. The word has to end there:
the path goes on to the next label, which begins another one, or to the end of the utterance. The phrases are a prefix
tree whose nodes keep the best path that ends in them (token passing); a path that is so far below that no phrase behind
it can be found is dropped.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kikitori.compiled import compiled


class PhraseTrie(NamedTuple):
    """Phrases as a prefix tree of labels; the children of a node follow each other, and the first node is the root.

    Attributes:
        labels: Of each node, (nodes,); -1 for the root.
        children: The first child of each node, (nodes + 1,): that of the next node is one behind its last.
        largest: The size of the largest phrase at or below each node, (nodes,).
        ends: The nodes at which spellings of phrases end, (spellings,).
        phrases: Which phrase each of them spells, (spellings,); each phrase has one at least.
        sizes: Of the phrases, by which their evidence is divided, (phrases,).
    """

    labels: NDArray[np.int32]
    children: NDArray[np.int32]
    largest: NDArray[np.float64]
    ends: NDArray[np.int32]
    phrases: NDArray[np.int32]
    sizes: NDArray[np.float64]


def phrase_trie(spellings: Sequence[Sequence[Sequence[int]]], sizes: Sequence[float]) -> PhraseTrie:
    """The prefix tree of phrases, each with one or more spellings of one label or more, and its size."""
    flat = [tuple(each) for ways in spellings for each in ways]
    owners = [phrase for phrase, ways in enumerate(spellings) for _ in ways]
    # Level by level; among sorted spellings those that begin alike, and so the children of a node, are neighbours.
    order = sorted(range(len(flat)), key=lambda place: flat[place])
    labels, parents, largest = [-1], [-1], [max(sizes, default=0.0)]
    level = dict.fromkeys(order, 0)
    ends = [0] * len(flat)
    depth = 0
    while level:
        reached: dict[int, int] = {}
        for place, parent in level.items():
            if len(flat[place]) == depth:
                ends[place] = parent
                continue
            label = flat[place][depth]
            if not reached or (labels[-1], parents[-1]) != (label, parent):
                labels.append(label)
                parents.append(parent)
                largest.append(0.0)
            reached[place] = len(labels) - 1
            largest[-1] = max(largest[-1], sizes[owners[place]])
        level, depth = reached, depth + 1
    children = np.searchsorted(np.array(parents[1:]), np.arange(len(labels) + 1)) + 1
    nodes = np.array(labels, np.int32), children.astype(np.int32), np.array(largest)
    return PhraseTrie(*nodes, np.array(ends, np.int32), np.array(owners, np.int32), np.array(sizes, np.float64))


def spot(trie: PhraseTrie, logits: Tensor, least: float, borders: NDArray[np.int64]) -> NDArray[np.float64]:
    """The evidence for each phrase over its size, (phrases,), -inf below `least`, which is 0 or less.

    Args:
        trie: The phrases.
        logits: Of the CTC head for one utterance, or log-probabilities, (frames, labels + 1), blank last.
        least: What a phrase has to have.
        borders: Labels that may follow a phrase, since they begin another word; with none of them any may.
    """
    values = logits.detach().float().cpu()
    gaps = (values - values.amax(dim=1, keepdim=True)).contiguous().numpy()
    follows = gaps[:, borders].max(axis=1).astype(np.float64) if len(borders) else np.zeros(len(gaps))
    best = np.full(len(trie.labels), -inf)
    # A hair is allowed for rounding.
    _pass_tokens(gaps, follows, trie.labels, trie.children, (least - 1e-6) * trie.largest, best)
    evidence = np.full(len(trie.sizes), -inf)
    np.maximum.at(evidence, trie.phrases, best[trie.ends])
    evidence /= trie.sizes
    return np.where(evidence >= least - 1e-6, evidence, -inf)


@compiled
def _pass_tokens(
    gaps: NDArray[np.float32],
    follows: NDArray[np.float64],
    labels: NDArray[np.int32],
    children: NDArray[np.int32],
    floors: NDArray[np.float64],
    best: NDArray[np.float64],
) -> None:
    """Writes the best path that ends in each node, and there ends a word, into `best`.

    `gaps` are below the best output of each frame, (frames, outputs), and so is what may follow a phrase, (frames,).
    """
    frames, blank, size = gaps.shape[0], gaps.shape[1] - 1, len(labels)
    closing = np.zeros(frames)  # of the best path behind each frame that ends a word: blanks, then what may follow
    for frame in range(frames - 2, -1, -1):
        closing[frame] = max(follows[frame + 1], gaps[frame + 1, blank] + closing[frame + 1])
    said, rests = np.empty(size), np.empty(size)  # the best path that ends in the node's label, or in a blank behind it
    new_said, new_rests = np.empty(size), np.empty(size)
    reached = np.full(size, -1)
    active, new_active = np.empty(size, np.int32), np.empty(size, np.int32)
    count = 0
    for frame in range(frames):
        row, new_count = gaps[frame], 0
        for place in range(-1, count):
            node = 0 if place < 0 else active[place]
            if place < 0:  # a phrase may begin in any frame
                last, rest = -inf, 0.0
            else:
                last, rest = said[node], rests[node]
                stays = last + row[labels[node]]
                pauses = max(last, rest) + row[blank]
                if max(stays, pauses) >= floors[node]:
                    if reached[node] != frame:
                        reached[node], new_active[new_count] = frame, node
                        new_said[node], new_rests[node] = -inf, -inf
                        new_count += 1
                    new_said[node] = max(new_said[node], stays)
                    new_rests[node] = pauses
            for child in range(children[node], children[node + 1]):
                label = labels[child]
                before = rest if place >= 0 and label == labels[node] else max(last, rest)
                value = before + row[label]
                if value >= floors[child]:
                    if reached[child] != frame:
                        reached[child], new_active[new_count] = frame, child
                        new_said[child], new_rests[child] = -inf, -inf
                        new_count += 1
                    new_said[child] = max(new_said[child], value)
        for place in range(new_count):
            node = new_active[place]
            best[node] = max(best[node], new_said[node] + closing[frame])
        said, new_said = new_said, said
        rests, new_rests = new_rests, rests
        active, new_active = new_active, active
        count = new_count
