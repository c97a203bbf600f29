"""Whole label sequences scored by a decoder behind its prefixes: merged into tries, each scored in one forward pass.

Every node of a trie is one position of the decoder, which reads the prefix and the nodes above it and stands at its
depth. The scores are those of one pass for each sequence; prefix and shared beginnings
are read once. Logits exist for a chunk of positions at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder
from kikitori.scorers.trie import Trie, tries

MAX_NODES = 1024
"""Nodes of one trie: the attention of a larger one would cost more than what its sequences share."""
MAX_CELLS = 2**23
"""Cells of an attention mask, (rows, positions, positions), in one forward pass."""
MAX_LOGITS = 2**24
"""Logits that exist at a time."""
CACHED = 2**18
"""Logits that are summed at a time."""


@dataclass(frozen=True)
class TreeScores:
    """What a decoder makes of some label sequences.

    Attributes:
        scores: Natural log-probability of each sequence with its end, as nested as the sequences were.
        nodes: Labels that were read, those of shared beginnings once.
    """

    scores: list[list[float]]
    labels: int
    nodes: int


@torch.inference_mode()
def score_sequences(decoder: Decoder, sequences: Sequence[Sequence[Sequence[int]]]) -> TreeScores:
    """Scores label sequences and the label that ends them, for each prefix of the decoder.

    Equal, empty and no sequences are fine. One that the decoder has too few positions for is impossible, -inf.
    """
    sizes: list[int] = decoder.prefix_lengths.tolist()
    most = decoder.max_positions
    rows = []
    for row, (size, members) in enumerate(zip(sizes, sequences, strict=True)):
        fitting = [place for place, sequence in enumerate(members) if most is None or size + len(sequence) <= most]
        fit = tries([members[place] for place in fitting], MAX_NODES)
        rows += [(row, replace(trie, members=tuple(fitting[place] for place in trie.members))) for trie in fit]
    rows.sort(key=lambda item: sizes[item[0]] + len(item[1].labels))  # rows of similar length share a pass
    scores = [[-inf] * len(members) for members in sequences]
    for batch in _batches(rows, sizes):
        for (row, trie), found in zip(batch, _score_tries(decoder, batch), strict=True):
            for member, score in zip(trie.members, found, strict=True):
                scores[row][member] = score
    num_labels = sum(len(sequence) for members in sequences for sequence in members)
    return TreeScores(scores, num_labels, sum(len(trie.labels) for _, trie in rows))


def _batches(rows: Sequence[tuple[int, Trie]], sizes: Sequence[int]) -> list[list[tuple[int, Trie]]]:
    batches: list[list[tuple[int, Trie]]] = []
    for row, trie in rows:  # the longest is the last
        width = sizes[row] + len(trie.labels)
        if not batches or (len(batches[-1]) + 1) * width**2 > MAX_CELLS:
            batches.append([])
        batches[-1].append((row, trie))
    return batches


def _score_tries(decoder: Decoder, batch: Sequence[tuple[int, Trie]]) -> list[list[float]]:
    """Scores of the members of each trie, with the prefix that belongs to it; one forward pass."""
    utterances, members = [utterance for utterance, _ in batch], [trie for _, trie in batch]
    contexts = decoder.read_trees(utterances, [trie.labels for trie in members], [trie.ends for trie in members])
    return _path_sums(members, contexts, decoder)


def _path_sums(batch: Sequence[Trie], contexts: Tensor, decoder: Decoder) -> list[list[float]]:
    """Scores along the paths of each trie; contexts (root and nodes of all tries, dim)."""
    places: list[int] = []
    labels: list[int] = []
    root = 0
    for trie in batch:
        places += [root + 1 + parent for parent in trie.parents]
        labels += trie.labels
        places += [root + 1 + node for node in trie.last]
        labels += [decoder.eos_id] * len(trie.last)
        root += 1 + len(trie.labels)
    steps = iter(next_log_probs(decoder, contexts, torch.tensor(places), torch.tensor(labels)).tolist())
    results = []
    for trie in batch:
        totals = [0.0]  # of the root and the nodes
        for parent in trie.parents:
            totals.append(totals[1 + parent] + next(steps))
        results.append([totals[1 + node] + next(steps) for node in trie.last])
    return results


def next_log_probs(decoder: Decoder, contexts: Tensor, places: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of some labels, (n,) float64: of `labels` (n,) behind the contexts (m, dim) at `places` (n,).

    Logits exist for a chunk of contexts at a time.
    """
    places, labels = places.to(contexts.device), labels.to(contexts.device)
    found = torch.zeros(len(places), dtype=torch.float64, device=contexts.device)
    chunk = max(1, MAX_LOGITS // decoder.vocab_size)
    for start in range(0, len(contexts), chunk):
        logits = decoder.project(contexts[start : start + chunk])
        here = ((places >= start) & (places < start + chunk)).nonzero()[:, 0]
        at = places[here] - start
        found[here] = logits[at, labels[here]].double() - _normalisers(logits)[at].double()
    return found


def _normalisers(logits: Tensor) -> Tensor:
    """Log-sums of logits (rows, labels) of any type in at least float32, a few rows at a time, which stay in cache."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    parts = logits.split(max(1, CACHED // logits.shape[1]))
    return torch.cat([part.to(dtype).logsumexp(dim=-1) for part in parts])
