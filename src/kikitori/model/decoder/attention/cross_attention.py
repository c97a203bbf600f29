"""Gated cross-attention: a hook before each LLM layer."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kikitori.model.decoder.attention.speech_layer import GATE_SPEED, Heads, SpeechLayer, split_heads


class CrossLayer(SpeechLayer):
    """Cross-attention before one LLM layer: h + tanh(10 g) W_O MHA(W_Q LN(h), W_K z, W_V z), no positions.

    The gate g starts at 0, where the LLM is as it was (the gating of Alayrac et al. 2022, "Flamingo"). With random
    weights in the LLM and an open gate this is the decoder of an AED model.
    """

    def __init__(self, dim: int, heads: Heads, dropout: float) -> None:
        super().__init__(dim, heads)
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Linear(dim, heads.queries * heads.dim, bias=False)
        self.output = nn.Linear(heads.queries * heads.dim, dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def read(self, hidden: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Add to hidden states (batch, n, dim) what they find in the valid (batch, positions) speech."""
        context = nn.functional.scaled_dot_product_attention(
            self._queries(hidden),
            keys,
            values,
            attn_mask=valid[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.heads.keys < self.heads.queries,
        )
        return self._updated(hidden, context)

    def read_watched(self, hidden: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """As `read`, with the attention written out; also its weights (batch, heads, n, positions)."""
        groups = self.heads.queries // self.heads.keys
        keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        scores = self._queries(hidden) @ keys.mT / math.sqrt(self.heads.dim)
        scores = scores.masked_fill(~valid[:, None, None, :], -math.inf)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
        weights = weights.masked_fill(~valid.any(dim=1)[:, None, None, None], 0.0)  # there is nothing to read
        return self._updated(hidden, weights @ values), weights

    def _queries(self, hidden: Tensor) -> Tensor:
        return split_heads(self.queries(self.norm(hidden)), self.heads.dim)

    def _updated(self, hidden: Tensor, context: Tensor) -> Tensor:
        update: Tensor = (GATE_SPEED * self.gate).tanh() * self.output(context.transpose(1, 2).flatten(2))
        return hidden + update


def cross_attention(
    index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The hook before an LLM layer. It takes the memory out, so that a second hook finds none."""
    if (memory := kwargs.get("memory")) is None:
        return None
    cross, keys, values = memory.layer(index)
    if memory.watched:
        hidden, memory.weights[index] = cross.read_watched(args[0], keys, values, memory.valid)
    else:
        hidden = cross.read(args[0], keys, values, memory.valid)
    return (hidden, *args[1:]), {name: value for name, value in kwargs.items() if name != "memory"}
