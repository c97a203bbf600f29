"""The passes over a few labels that a probe compares with the LLM's own (`probe`).

So few labels take as long as the weights take to be read: each pass shows several things at once, and the hidden states
of several passes are projected together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, cache_utils
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from kikitori.errors import ModelError
from kikitori.model.decoder.base import DecoderState
from kikitori.model.decoder.cache import append, read, read_tree
from kikitori.model.decoder.llm import embed, forward, forward_tree, num_embeddings, project, text_config
from kikitori.model.decoder.probe import Use
from kikitori.model.decoder.recurrent import is_recurrent

TOLERANCE = 5e-4
"""Largest difference of logits in float32, root mean square over the vocabulary, in standard deviations of logits."""
ROUNDINGS = 32
"""The same in units of rounding, for coarser numbers."""
KEPT: set[Any] = {
    getattr(cache_utils, "DummyLayer", None),  # since transformers 5.23
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
}
"""Layers of a cache whose contents a `DecoderState` keeps."""


@dataclass(frozen=True, eq=False)
class Part:
    """Hidden states (n, dim) of a row from a position on, and where they were read."""

    where: str
    hidden: Tensor
    row: int
    start: int = 0


class Passes:
    """Two rows of one length that begin alike, read in several ways and compared with the LLM's own pass over both.

    Every method gives what it has read, for `compare` to project and compare at once, and raises what it finds before.

    Args:
        llm: In evaluation mode.
        most: Labels of the longest row that is read, at least 5.
    """

    def __init__(self, llm: PreTrainedModel, most: int) -> None:
        self._llm, self._size, self._shared = llm, most - 1, (most - 1) // 2
        labels = _labels(llm, 2 * most)
        self._longer, self._first, self._other = labels[:most], labels[: most - 1], labels[-1:]
        self._second = torch.cat([self._first[: self._shared], labels[most : 2 * most - 1 - self._shared]])
        self._tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(next(llm.parameters()).dtype).eps)

    def rows(self) -> list[Part]:
        """Both rows in a batch beside a longer one, so that they are padded; the future must not be seen either."""
        llm, size = self._llm, self._size
        if off := self._difference(self._own[1, : self._shared], 0, 0):
            raise ModelError(f"it sees the labels that follow (logits differ by {off})")
        ids = _batch(self._longer, self._first, self._second)
        _, first, second = forward(llm, embed(llm, ids), self._tensor([size + 1, size, size]))
        where = "in a padded batch"
        return [Part(where, first[:size], 0), Part(where, second[:size], 1)]

    def cache(self) -> list[Part]:
        """Both rows up to different labels, another appended and taken back, rows exchanged and copied, the rest."""
        _check_kind_of_state(self._llm)
        first, second, shared = self._first, self._second, self._shared
        hidden, state = self._begun
        where = "behind a cache"
        parts = [Part(where, hidden[0, :shared], 0), Part(where, hidden[1, : shared - 1], 1)]
        rest, again, one = second[shared - 1 :], first[shared:], second[shared - 1 : shared]
        state, lengths = state.reorder(self._tensor([1, 0, 1])), self._tensor([len(rest), len(again), 1])
        hidden, _ = append(self._llm, _batch(rest, again, one), state, lengths)
        where = "behind a cache from which labels were taken back"
        parts.append(Part(where, hidden[0, : len(rest)], 1, shared - 1))
        parts.append(Part(where, hidden[1, : len(again)], 0, shared))
        return [*parts, Part(where, hidden[2, :1], 1, shared - 1)]

    def trees(self) -> list[Part]:
        """Both rows as one tree beside one of them alone, in one pass and behind a cache of what they share."""
        llm, size, shared = self._llm, self._size, self._shared
        _check_kind_of_state(llm)
        if is_recurrent(llm):
            raise ModelError("its layers keep a recurrent state")
        tree, width = torch.cat([self._first, self._second[shared:]]), 2 * size - shared
        columns = torch.arange(width, device=llm.device)
        ends = torch.where((columns >= shared) & (columns < size), size, width)
        alone = torch.where(columns < size, size, columns + 1)
        both, single = forward_tree(llm, embed(llm, _batch(tree, self._second)), torch.stack([ends, alone]))
        where = "in a tree"
        parts = [Part(where, both[:size], 0), Part(where, both[size:], 1, shared), Part(where, single[:size], 1)]
        reads = (columns <= columns[:, None]) & (columns[:, None] < ends)
        state = self._begun[1].reorder(self._tensor([0]))
        (hidden,), _ = read_tree(llm, tree[None, shared:], state.layers, reads[None, shared:])
        where, split = "in a tree behind a cache", size - shared
        return [*parts, Part(where, hidden[:split], 0, shared), Part(where, hidden[split:], 1, shared)]

    def compare(self, read: Mapping[Use, Sequence[Part]]) -> dict[Use, str]:
        """What is found in the first part that is not as it should be, of each use; empty where all is well."""
        parts = [(use, part) for use, each in read.items() for part in each]
        found = dict.fromkeys(read, "")
        if parts:
            logits = project(self._llm, torch.cat([part.hidden for _, part in parts]))
            for (use, part), its in zip(parts, logits.split([len(part.hidden) for _, part in parts]), strict=True):
                if not found[use] and (off := self._difference(its, part.row, part.start)):
                    found[use] = f"logits {part.where} are not those of its own forward pass (they differ by {off})"
        return found

    @cached_property
    def _own(self) -> Tensor:
        """Logits (2, n, vocab) of the LLM's own pass over both rows."""
        logits: Tensor = self._llm(input_ids=torch.stack([self._first, self._second]), use_cache=False).logits
        return logits

    @cached_property
    def _begun(self) -> tuple[Tensor, DecoderState]:
        """Hidden states (2, n, dim) of what both rows share, in the second row without its last label, and the state.

        Another label behind them was taken back; where that cannot be, it must not have changed the state.
        """
        llm, first, second, other = self._llm, self._first[: self._shared], self._first[: self._shared - 1], self._other
        lengths = self._tensor([len(first), len(second)])
        if is_recurrent(llm):
            hidden, state = read(llm, embed(llm, _batch(first, second)), lengths)
            append(llm, _batch(other, other), state)
            return hidden, state
        nothing = DecoderState((), torch.zeros(2, 0, dtype=torch.bool, device=llm.device), torch.zeros_like(lengths))
        ids = _batch(torch.cat([first, other]), torch.cat([second, other]))
        hidden, state = append(llm, ids, nothing, lengths + 1)
        return hidden, state.crop(lengths)

    def _difference(self, logits: Tensor, row: int, start: int) -> str:
        """The largest difference beyond the tolerance, in standard deviations; empty if there is none."""
        own = self._own[row, start : start + len(logits)].double()
        same = (own == logits) | (own.isnan() & logits.isnan())  # what is not finite is found elsewhere
        scale = torch.where(own.isfinite(), own, 0.0).std(dim=1).clamp(min=1e-12)
        off = (torch.where(same, 0.0, own - logits).square().mean(dim=1).sqrt() / scale).max()
        return "" if bool(off <= self._tolerance) else f"{float(off):.1g} standard deviations"

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._llm.device)


def _batch(*rows: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _check_kind_of_state(llm: PreTrainedModel) -> None:
    """Refuses layers that keep something else than keys and values of all labels or one state, by the configuration."""
    kinds = {type(layer) for layer in DynamicCache(config=text_config(llm)).layers}
    strange = sorted(kind.__name__ for kind in kinds - KEPT)
    if "local" in getattr(text_config(llm), "attention_layers", ()):  # GPT-Neo counts its window in slots
        strange.append("local attention")
    if strange:
        raise ModelError(f"its layers keep more than keys and values ({', '.join(strange)})")


def _labels(llm: PreTrainedModel, count: int) -> Tensor:
    """Plain labels, different ones where there are enough: (count,)."""
    special = set()
    for config in (llm.config, text_config(llm)):
        for name, value in config.to_dict().items():
            if name.endswith(("_id", "_index", "_ids")):
                special |= {value} if isinstance(value, int) else set(value or ()) if isinstance(value, list) else set()
    size = num_embeddings(llm)
    plain = [label for label in range(min(size, 4 * count + len(special))) if label not in special] or [0]
    plain = plain[-count:]
    return torch.tensor([plain[place % len(plain)] for place in range(count)], device=llm.device)
