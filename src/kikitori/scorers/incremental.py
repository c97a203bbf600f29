"""Incremental scores of a language model with a tree KV cache: of sequences that grow, each token is read once.

All that was read of an utterance stays in a tree of tokens: keys and values, the hidden state, and the log-probability
of the sequence up to there. A sequence is read from where it leaves the tree on; so one of which earlier tokens have
changed costs what follows the last that has not, and what many begin with is shared. What is new of all sequences is
again a tree, read in one pass with a tree attention mask. Scores are those of sequences read whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
import torch
from torch import Tensor

from kikitori.model.decoder.cache import read_tree
from kikitori.model.decoder.tree import KeyValues
from kikitori.scorers.language_model import LanguageModel
from kikitori.scorers.tree import MAX_CELLS, MAX_NODES, next_log_probs

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Node:
    """A token behind those above it.

    Attributes:
        parent: The one before, None for the root, which is no token.
        token: The token.
        counts: Whether it belongs to the text, not to what stands before every text.
        place: Where its keys and values lie, once it is read; so the rest.
        total: Log-probability of the text up to it.
        hidden: Hidden state, (dim,).
        children: Those that were seen behind it.
    """

    parent: "_Node | None" = None
    token: int = -1
    counts: bool = False
    place: int = -1
    total: float = 0.0
    hidden: Tensor | None = None
    children: dict[int, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Row:
    """New tokens of one utterance, and which tokens each of them reads.

    Attributes:
        new: The tokens, those of shared beginnings once, parents before children.
        slots: Places of the old tokens that any of them reads.
        reads: Whether each reads an old token or a new one, (new, slots + new).
    """

    new: list[_Node]
    slots: list[int]
    reads: np.ndarray[tuple[int, int], np.dtype[np.bool_]]


class IncrementalLMScorer:
    """What a language model has read for one search.

    Args:
        lm: The language model, which must pass `check_trees`.
        batch: Utterances, each of which has a tree of its own.
    """

    def __init__(self, lm: LanguageModel, batch: int) -> None:
        self._lm, self._most, self._decoder = lm, lm.most_labels, lm.decoder()
        self._stored = KeyValues()
        self._roots = [_Node() for _ in range(batch)]

    def scores(self, sequences: Sequence[Sequence[Tokens]]) -> list[list[float]]:
        """Log-probability of each sequence without its end, by utterance; -inf where it is too long for the LLM.

        One forward pass for all that is new, if that is not very much.
        """
        return [[-inf if node is None else node.total for node in row] for row in self._read(sequences)]

    def ended(self, sequences: Sequence[Sequence[Tokens]]) -> list[list[float]]:
        """As `scores`, the end of the sentence included."""
        rows = self._read(sequences)
        last = [node for row in rows for node in row if node is not None]
        ends = iter(self._steps(last, [self._lm.eos_id] * len(last)))
        return [[-inf if node is None else node.total + next(ends) for node in row] for row in rows]

    def _read(self, sequences: Sequence[Sequence[Tokens]]) -> list[list[_Node | None]]:
        """The last token of each sequence, all of them read; None where the sequence is too long."""
        found: list[list[_Node | None]] = []
        fresh: list[list[_Node]] = []
        for root, members in zip(self._roots, sequences, strict=True):
            fresh.append([])
            found.append([self._enter(root, each, fresh[-1]) if self._fits(each) else None for each in members])
        while any(fresh):
            self._read_rows([_row(nodes[:MAX_NODES]) for nodes in fresh if nodes])
            fresh = [nodes[MAX_NODES:] for nodes in fresh]
        return found

    def _fits(self, sequence: Tokens) -> bool:
        return self._most is None or len(sequence) <= self._most

    def _enter(self, node: _Node, sequence: Tokens, fresh: list[_Node]) -> _Node:
        """The last token of a sequence; those that are not in the tree yet are put there, and among the fresh ones."""
        for place, token in enumerate((*self._lm.start, *sequence)):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = _Node(node, token, counts=place >= len(self._lm.start))
                fresh.append(child)
            node = child
        return node

    def _read_rows(self, rows: list[_Row]) -> None:
        """Reads rows, similar ones in a pass, as many as attention has cells for."""
        rows.sort(key=lambda row: row.reads.size)
        batch: list[_Row] = []
        for row in rows:
            wide = [*batch, row]
            cells = max(len(each.new) for each in wide) * max(each.reads.shape[1] for each in wide)
            if batch and len(wide) * cells > MAX_CELLS:
                self._forward(batch)
                wide = [row]
            batch = wide
        self._forward(batch)

    def _forward(self, batch: Sequence[_Row]) -> None:
        """One forward pass."""
        device = self._lm.llm.device
        width, slots = max(len(row.new) for row in batch), max(len(row.slots) for row in batch)
        labels, new = np.zeros((len(batch), width), np.int64), np.zeros((len(batch), width), np.bool_)
        places = np.zeros((len(batch), slots), np.int64)
        reads = np.zeros((len(batch), width, slots + width), np.bool_)
        reads[:, np.arange(width), slots + np.arange(width)] = True  # padding sees itself alone
        for index, row in enumerate(batch):
            count, old = len(row.new), len(row.slots)
            labels[index, :count], new[index, :count] = [node.token for node in row.new], True
            places[index, :old] = row.slots
            reads[index, :count, :old], reads[index, :count, slots : slots + count] = (
                row.reads[:, :old],
                row.reads[:, old:],
            )
        gathered = self._stored.gather(torch.from_numpy(places).to(device))
        hidden, layers = read_tree(
            self._lm.llm, torch.from_numpy(labels).to(device), gathered, torch.from_numpy(reads).to(device)
        )
        kept = self._stored.keep(layers, slots, torch.from_numpy(new).to(device)).tolist()
        for row, its_places, states in zip(batch, kept, hidden, strict=True):
            for node, place, state in zip(row.new, its_places, states, strict=False):
                node.place, node.hidden = place, state
        counted = [node for row in batch for node in row.new if node.counts]
        before = [node.parent for node in counted if node.parent is not None]
        steps = self._steps(before, [node.token for node in counted])
        for node, parent, step in zip(counted, before, steps, strict=True):
            node.total = parent.total + step

    def _steps(self, nodes: Sequence[_Node], tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of tokens, each behind a node."""
        if not nodes:
            return []
        contexts = torch.stack([node.hidden for node in nodes if node.hidden is not None])
        return next_log_probs(self._decoder, contexts, torch.arange(len(nodes)), torch.tensor(tokens)).tolist()  # type: ignore[no-any-return]


def _row(new: list[_Node]) -> _Row:
    """What some new tokens read; those above them are old, or come before them."""
    columns = {id(node): column for column, node in enumerate(new)}
    above: list[list[int]] = []  # places of the old tokens above each
    for node in new:
        parent, places = node.parent, []
        if id(parent) not in columns:
            while parent is not None and parent.place >= 0:
                places.append(parent.place)
                parent = parent.parent
        above.append(places)
    slots = sorted({place for places in above for place in places})
    slot = {place: column for column, place in enumerate(slots)}
    reads = np.zeros((len(new), len(slots) + len(new)), np.bool_)
    for column, (node, places) in enumerate(zip(new, above, strict=True)):
        if (parent_column := columns.get(id(node.parent))) is not None:
            reads[column] = reads[parent_column]
        reads[column, [slot[place] for place in places]] = True
        reads[column, len(slots) + column] = True
    return _Row(new, slots, reads)
