"""The LLM with a key-value cache: the prefix once, then labels behind it.

With `recurrent` the only file that touches the caches of transformers, whose interface moves between releases. Rows are
padded on the right and padding is masked, so that a row's hidden states depend on that row alone. Whether the speech
stands in the embeddings or in a `Memory` beside them (`interface`) makes no difference to the caller. Nothing here
switches gradients off: searches run under `torch.inference_mode()`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.attention.masks import Mask, causal, has_windows, layer_masks
from kikitori.model.decoder.base import DecoderState
from kikitori.model.decoder.llm import (
    checked_lengths,
    cleared,
    embed,
    hidden_states,
    position_ids,
    project,
    text_config,
)
from kikitori.model.decoder.memory import Layers, Memory
from kikitori.model.decoder.recurrent import chosen, from_cache, is_recurrent, to_cache, together
from kikitori.model.features import valid_mask

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

LEAST_FILLED = 0.9
"""Rows share a prefill on the CPU if the shortest has at least this share of the longest one's positions."""


def prefill(
    llm: "PreTrainedModel", embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, DecoderState]:
    """Read the prefix, that is everything before the first label to predict.

    Args:
        llm: A model that passes `check_decoding` (`probe`).
        embeds: Input embeddings padded on the right, (batch, n, dim).
        lengths: Real positions per row, (batch,) int64, each 1 to n.
        memory: The speech of each row, if an interface keeps it beside the text.

    Returns:
        Logits (batch, vocab) of the label after each row's last real position, and the state.
    """
    hidden, state = read(llm, embeds, lengths, memory)
    last = hidden[torch.arange(len(hidden), device=hidden.device), state.lengths - 1]
    return project(llm, last), state


def read(
    llm: "PreTrainedModel", embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, DecoderState]:
    """As `prefill`, with hidden states (batch, n, dim) in place of logits, undefined in the padding."""
    lengths = checked_lengths(lengths, embeds, least=1)
    sizes: list[int] = lengths.tolist()
    groups: Sequence[Sequence[int]] = [range(len(sizes))]
    if is_recurrent(llm):
        groups = _of_similar_length(sizes, 1.0)
    elif embeds.device.type == "cpu":
        groups = _of_similar_length(sizes, LEAST_FILLED)
    parts = []
    for group in groups:
        rows = torch.tensor(group, device=embeds.device)
        its_memory = memory if memory is None or len(groups) == 1 else memory.reorder(rows)
        none = torch.zeros(len(group), 0, dtype=torch.bool, device=embeds.device)
        columns = max(sizes[row] for row in group)
        state = DecoderState((), none, none.sum(dim=1), its_memory)
        parts.append((rows, *_append(llm, embeds[rows, :columns], lengths[rows], state)))
    return _together(parts, memory)


def step(
    llm: "PreTrainedModel", labels: Tensor, state: DecoderState, lengths: Tensor | None = None
) -> tuple[Tensor, DecoderState]:
    """Append labels to every row and score what may follow each of them.

    Args:
        llm: The model that made the state.
        labels: (batch, n) int64, n >= 1; several at once to verify a draft or to catch up in delayed fusion.
        state: Left as it was.
        lengths: Real labels per row, (batch,) int64, each 0 to n; all of them if None.

    Returns:
        Logits (batch, n, vocab), where column j scores the label after labels[:, j] and is undefined from lengths[i]
        on, and the state that includes the labels.
    """
    hidden, state = append(llm, labels, state, lengths)
    return project(llm, hidden), state


def append(
    llm: "PreTrainedModel", labels: Tensor, state: DecoderState, lengths: Tensor | None = None
) -> tuple[Tensor, DecoderState]:
    """As `step`, with hidden states (batch, n, dim) in place of logits: some of them can then be projected."""
    if labels.ndim != 2 or labels.shape[0] != state.batch_size or labels.shape[1] < 1:
        raise ModelError(f"labels of shape {tuple(labels.shape)} do not fit a state of {state.batch_size} rows")
    if lengths is None:
        lengths = torch.full_like(state.lengths, labels.shape[1])
    else:
        lengths = checked_lengths(lengths, labels, least=0)
        labels = labels.masked_fill(~valid_mask(lengths, labels.shape[1]), 0)
    embeds = embed(llm, labels)
    if state.recurrent:
        return _one_by_one(llm, embeds, lengths, state)
    return _append(llm, embeds, lengths, state)


def read_tree(llm: "PreTrainedModel", labels: Tensor, layers: Layers, reads: Tensor) -> tuple[Tensor, Layers]:
    """Append the labels of a tree, each of which reads those above it, as if its branch were a whole row.

    Args:
        llm: A model that passes `check_trees` (`probe`), without recurrent layers, and without speech in a memory.
        labels: (batch, n) int64.
        layers: Keys and values of each layer, (batch, heads, slots, dim), no label before one above it; left as they
            are.
        reads: Which slots, old ones and then new ones, each label reads, (batch, n, slots + n): all labels before it in
            its branch, from the first position on, and itself; in padding at least itself.

    Returns:
        Hidden states of the last layer (batch, n, dim), and the layers with the new slots.
    """
    embeds, cache = embed(llm, labels), _to_cache(layers)
    mask = layer_masks(text_config(llm), reads, embeds.dtype)
    hidden = hidden_states(llm, embeds, mask, reads.sum(dim=2) - 1, cache, None)[-1]
    return hidden, _grown(llm, cache, reads.shape[2])


def _append(
    llm: "PreTrainedModel", embeds: Tensor, lengths: Tensor, state: DecoderState
) -> tuple[Tensor, DecoderState]:
    """Run the LLM over `embeds` behind the state; all n columns take a slot, the first `lengths[i]` count."""
    new = valid_mask(lengths, embeds.shape[1])
    valid = torch.cat([state.valid, new], dim=1)
    cache = to_cache(llm, state.layers, state.recurrent) if is_recurrent(llm) else _to_cache(state.layers)
    positions = position_ids(state.lengths, lengths, embeds.shape[1])
    mask: Mask | None = valid.long()
    if is_recurrent(llm) and not state.layers:  # no padding, or nothing that attends to it
        mask = None
    elif _windowed(llm):
        mask = layer_masks(text_config(llm), causal(valid, embeds.shape[1]), embeds.dtype)
    hidden = hidden_states(llm, cleared(embeds, new), mask, positions, cache, state.memory)[-1]
    layers = _grown(llm, cache, valid.shape[1])
    return hidden, DecoderState(layers, valid, state.lengths + lengths, state.memory, from_cache(cache))


def _one_by_one(
    llm: "PreTrainedModel", embeds: Tensor, lengths: Tensor, state: DecoderState
) -> tuple[Tensor, DecoderState]:
    """As `_append`, a column in each pass: padding would go into the states of recurrent layers.

    Rows without a label in a column take a slot in vain, and their recurrent states stay as they were.
    """
    found = []
    for column in range(embeds.shape[1]):
        real = lengths > column
        hidden, grown = _append(llm, embeds[:, column : column + 1], real.long(), state)
        state = replace(grown, recurrent=chosen(grown.recurrent, state.recurrent, real))
        found.append(hidden)
    return torch.cat(found, dim=1), state


_with_windows: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


def _windowed(llm: "PreTrainedModel") -> bool:
    """Whether some layers read a window of labels only; asked of the configuration once."""
    found = _with_windows.get(llm)
    if found is None:
        found = _with_windows[llm] = has_windows(text_config(llm))
    return found


def _grown(llm: "PreTrainedModel", cache: "DynamicCache", slots: int) -> Layers:
    """Keys and values after a pass, which must be there for every position up to now.

    Raises:
        ModelError: The LLM has not taken the cache, and would go on without what stands before.
    """
    from transformers.cache_utils import DynamicLayer

    grown: Any = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    remembers = bool(grown) or any(state is not None for state in from_cache(cache))
    if not remembers or any(layer.keys is None or layer.keys.shape[2] != slots for layer in grown):
        raise ModelError(
            "its key-value cache has not grown with a pass",
            where=type(llm).__name__,
            remedy="use an LLM of docs/llms.md, or the transformers release that is named there",
        )
    return tuple((layer.keys, layer.values) for layer in grown)


def _to_cache(layers: Layers) -> "DynamicCache":
    """Wrap the tensors without copying. The cache grows by concatenation and so never writes into them."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache, new_layer = DynamicCache(), cast(type[Any], DynamicLayer)
    for keys, values in layers:
        layer = new_layer()
        layer.lazy_initialization(keys, values)  # notes type and device
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _of_similar_length(lengths: Sequence[int], least_filled: float) -> list[list[int]]:
    """Rows by length, longest first, in groups with little padding: a CPU takes as long for padding as for text."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[row] < least_filled * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [sorted(group) for group in groups]


def _together(
    parts: Sequence[tuple[Tensor, Tensor, DecoderState]], memory: Memory | None
) -> tuple[Tensor, DecoderState]:
    """Hidden states and state of a whole batch, from the rows, hidden states and states of its parts, longest first."""
    if len(parts) == 1:
        return parts[0][1:]

    def whole(tensors: Sequence[Tensor], dim: int) -> Tensor:
        """Tensors (rows, ...) as one, padded along `dim` to the size of the first."""
        first = tensors[0]
        joined = first.new_zeros(sum(map(len, tensors)), *first.shape[1:])
        for (rows, *_), tensor in zip(parts, tensors, strict=True):
            joined.narrow(dim, 0, tensor.shape[dim])[rows] = tensor
        return joined

    states = [state for _, _, state in parts]
    layers = tuple(
        (whole([keys for keys, _ in layer], 2), whole([values for _, values in layer], 2))
        for layer in zip(*(state.layers for state in states), strict=True)
    )
    valid = whole([state.valid for state in states], 1)
    recurrent = together([(rows, state.recurrent) for rows, _, state in parts])
    state = DecoderState(layers, valid, valid.sum(dim=1), memory, recurrent)
    return whole([hidden for _, hidden, _ in parts], 1), state
