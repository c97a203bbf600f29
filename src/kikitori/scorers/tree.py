"""Whole label sequences scored by an LLM behind a prefix: merged into tries, each scored in one forward pass.

Every node of a trie is one position of the LLM, which reads the prefix and the nodes above it and stands at its depth
(`forward_tree`). The scores are those of one pass for each sequence; prefix and shared beginnings
are read once. Logits exist for a chunk of positions at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import embed, forward_tree, max_positions, project
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
    """What an LLM makes of some label sequences.

    Attributes:
        scores: Natural log-probability of each sequence with its end, as nested as the sequences were.
        labels: Labels of all sequences together.
        nodes: Labels that were read, those of shared beginnings once.
    """

    scores: list[list[float]]
    labels: int
    nodes: int


@torch.inference_mode()
def score_sequences(
    llm: PreTrainedModel, prefix: AssembledInput, sequences: Sequence[Sequence[Sequence[int]]], *, eos_id: int
) -> TreeScores:
    """Scores label sequences and the label that ends them, for some utterances at once.

    Args:
        llm: A causal LLM that takes position ids.
        prefix: What it reads before the first label, one row per utterance: a prompt, or that of a speech LLM.
        sequences: For each utterance its label sequences without EOS; equal, empty and no sequences are fine. One that
            the LLM has too few positions for is impossible, -inf.
        eos_id: The label that ends a sequence.
    """
    sizes: list[int] = prefix.lengths.tolist()
    most = max_positions(llm)
    rows = []
    for row, (size, members) in enumerate(zip(sizes, sequences, strict=True)):
        fitting = [place for place, sequence in enumerate(members) if most is None or size + len(sequence) <= most]
        fit = tries([members[place] for place in fitting], MAX_NODES)
        rows += [(row, replace(trie, members=tuple(fitting[place] for place in trie.members))) for trie in fit]
    rows.sort(key=lambda item: sizes[item[0]] + len(item[1].labels))  # rows of similar length share a pass
    scores = [[-inf] * len(members) for members in sequences]
    for batch in _batches(rows, sizes):
        for (row, trie), found in zip(batch, _score_tries(llm, prefix, batch, eos_id), strict=True):
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


def _score_tries(
    llm: PreTrainedModel, prefix: AssembledInput, batch: Sequence[tuple[int, Trie]], eos_id: int
) -> list[list[float]]:
    """Scores of the members of each trie, with the prefix that belongs to it; one forward pass."""
    device = prefix.embeds.device
    utterances = torch.tensor([row for row, _ in batch], device=device)
    starts: list[int] = prefix.lengths[utterances].tolist()
    widths = [start + len(trie.labels) for start, (_, trie) in zip(starts, batch, strict=True)]
    labels = torch.tensor([label for _, trie in batch for label in trie.labels], dtype=torch.int64, device=device)
    nodes = embed(llm, labels[None])[0].split([len(trie.labels) for _, trie in batch])
    embeds = prefix.embeds.new_zeros(len(batch), max(widths), prefix.embeds.shape[2])
    ends = torch.arange(1, max(widths) + 1, device=device).repeat(len(batch), 1)  # padding sees itself alone
    for row, (start, width, (utterance, trie)) in enumerate(zip(starts, widths, batch, strict=True)):
        embeds[row, :start] = prefix.embeds[utterance, :start]
        embeds[row, start:width] = nodes[row].to(embeds.dtype)
        ends[row, :start] = width
        ends[row, start:width] = torch.tensor(trie.ends, dtype=torch.int64, device=device) + start
    memory = prefix.memory and prefix.memory.reorder(utterances)
    hidden = forward_tree(llm, embeds, ends, memory)
    # Contexts of a trie: the last position of the prefix, then its nodes.
    spans = zip(hidden, starts, widths, strict=True)
    contexts = torch.cat([states[start - 1 : width] for states, start, width in spans])
    return _path_sums([trie for _, trie in batch], contexts, llm, eos_id)


def _path_sums(batch: Sequence[Trie], contexts: Tensor, llm: PreTrainedModel, eos_id: int) -> list[list[float]]:
    """Scores along the paths of each trie; contexts (root and nodes of all tries, dim)."""
    places: list[int] = []
    labels: list[int] = []
    root = 0
    for trie in batch:
        places += [root + 1 + parent for parent in trie.parents]
        labels += trie.labels
        places += [root + 1 + node for node in trie.last]
        labels += [eos_id] * len(trie.last)
        root += 1 + len(trie.labels)
    steps = iter(next_log_probs(llm, contexts, torch.tensor(places), torch.tensor(labels)).tolist())
    results = []
    for trie in batch:
        totals = [0.0]  # of the root and the nodes
        for parent in trie.parents:
            totals.append(totals[1 + parent] + next(steps))
        results.append([totals[1 + node] + next(steps) for node in trie.last])
    return results


def next_log_probs(llm: PreTrainedModel, contexts: Tensor, places: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of some labels, (n,) float64: of `labels` (n,) behind the contexts (m, dim) at `places` (n,).

    Logits exist for a chunk of contexts at a time.
    """
    places, labels = places.to(contexts.device), labels.to(contexts.device)
    found = torch.zeros(len(places), dtype=torch.float64, device=contexts.device)
    head = llm.get_output_embeddings()
    chunk = max(1, MAX_LOGITS // int(head.weight.shape[0]))  # type: ignore[union-attr, index]
    for start in range(0, len(contexts), chunk):
        logits = project(llm, contexts[start : start + chunk])
        here = ((places >= start) & (places < start + chunk)).nonzero()[:, 0]
        at = places[here] - start
        found[here] = logits[at, labels[here]].double() - _normalisers(logits)[at].double()
    return found


def _normalisers(logits: Tensor) -> Tensor:
    """Log-sums of logits (rows, labels) of any type in at least float32, a few rows at a time, which stay in cache."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    parts = logits.split(max(1, CACHED // logits.shape[1]))
    return torch.cat([part.to(dtype).logsumexp(dim=-1) for part in parts])
