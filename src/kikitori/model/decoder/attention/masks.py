"""Attention masks of an LLM with a cache or over trees, also where some of its layers read a window of labels only.

transformers counts a window in slots of the cache. Ours holds slots of padding, of labels taken back and of other
branches, so here a window is counted in the labels that a position reads: the slots that it may read stand in the order
of their positions. Without cache and branches slots are positions, and transformers' own masks are right.
"""

from typing import Any

import torch
from torch import Tensor

Mask = Tensor | dict[str, Tensor]
"""One for all layers, or one for each kind of layer, by transformers' name."""
FULL = "full_attention"
WINDOW = "sliding_attention"
CHUNK = "chunked_attention"
SIZES = {WINDOW: "sliding_window", CHUNK: "attention_chunk_size"}
"""Where the configuration has the size of a window."""


def layer_kinds(config: Any) -> set[str]:
    """Kinds of attention in the LLM's layers, by transformers' names."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds)
    return {next((kind for kind, name in SIZES.items() if getattr(config, name, None) is not None), FULL)}


def has_windows(config: Any) -> bool:
    """Whether some layer reads a window of labels only."""
    return not layer_kinds(config).isdisjoint(SIZES)


def causal(valid: Tensor, count: int) -> Tensor:
    """Which slots each of the last `count` ones reads (batch, count, slots): those that are `valid`, up to its own."""
    slots = torch.arange(valid.shape[1], device=valid.device)
    return valid[:, None] & (slots <= slots[-count:, None])


def layer_masks(config: Any, reads: Tensor, dtype: torch.dtype) -> Mask:
    """What is added to attention scores, by kind of layer where there are several.

    Args:
        config: The LLM's configuration.
        reads: Which slots each label reads if nothing but full attention counts (batch, n, slots), in the order of
            their positions: all before it in its branch, from the first on, and itself.
        dtype: Of the scores.
    """
    kinds = layer_kinds(config)
    if kinds.isdisjoint(SIZES):
        return additive_mask(reads, dtype)
    masks = {kind: additive_mask(_within(config, kind, reads), dtype) for kind in kinds}
    return masks if len(masks) > 1 else masks.popitem()[1]


def additive_mask(reads: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores (batch, 1, n, slots) so that no label reads more than it may.

    Numbers and not truth values: attention that is written out adds them to its scores.
    """
    mask = torch.zeros(reads.shape, dtype=dtype, device=reads.device).masked_fill(~reads, torch.finfo(dtype).min)
    return mask[:, None]


def _within(config: Any, kind: str, reads: Tensor) -> Tensor:
    """Of the slots that are read those within the window of a kind of layer."""
    if kind not in SIZES:
        return reads
    size = int(getattr(config, SIZES[kind]))
    position, own = reads.cumsum(dim=2) - 1, reads.sum(dim=2, keepdim=True) - 1
    return reads & (own - position < size if kind == WINDOW else own // size == position // size)
