"""Merged attention: an attention function of transformers with one softmax over speech and text."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from kikitori.model.decoder.attention.speech_layer import GATE_SPEED, Heads, SpeechLayer
from kikitori.model.decoder.memory import MERGED, Reading

CLOSED = 1e-20  # the gate of merged attention at first, and the least that it counts for


class MergedLayer(SpeechLayer):
    """Merged attention in one LLM layer: one softmax over the speech and the text so far.

    h'_u = softmax(Q_u K^T / sqrt(d)) V with K = [W_K^enc z_1..z_T ; W_K h_1..h_u], V likewise (papers.md B1.3), and a
    learned bias b per head on the scores of the speech. Speech keys stand at no position: they are not rotated and the
    queries meet them before rotation.

    b = log(10 |g| + 1e-20) with a gate g that starts at 1e-20: at b = -43.7 the LLM is as it was, whatever its queries.
    As a parameter itself, b would have a gradient of the size of exp(b) and all that way to go, one learning rate a
    step. The gradient of g does not depend on how small g is, so the first step brings b to about log(10 lr).

    Where the LLM adds a bias to its keys, it stands in speech keys too. All scores of a query share its share of them,
    which may be larger than any b; a text key at the query's own position has just that of an unrotated one.
    """

    def __init__(self, dim: int, heads: Heads, key_bias: Tensor | None = None) -> None:
        super().__init__(dim, heads, key_bias=key_bias is not None)
        if key_bias is not None:
            self.keys.bias.data.copy_(key_bias)
        self.gate = nn.Parameter(torch.full((heads.queries,), CLOSED))

    @property
    def bias(self) -> Tensor:
        """What the scores of the speech get in each head, (heads,)."""
        return (GATE_SPEED * self.gate.float().abs() + CLOSED).log()


def key_bias_of(layer: Any, heads: Heads) -> Tensor | None:
    """What an LLM layer adds to every key, (heads * head_dim,)."""
    if hasattr(layer, "attention"):  # GPT-NeoX, with query, key and value of each head side by side
        together: Tensor | None = layer.attention.query_key_value.bias
        return None if together is None else together.detach().reshape(heads.keys, 3, heads.dim)[:, 1].flatten()
    bias: Tensor | None = layer.self_attn.k_proj.bias
    return None if bias is None else bias.detach()


def _merged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    memory: Reading | None = None,
    **rest: Any,  # what else a family gives its attention function
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers: query (batch, heads, n, dim) over speech and text to (batch, n, ...).

    Its weights, where they are watched, are split: those of the text are returned as transformers wants them.
    """
    if memory is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
        )
        return output, None
    index = int(cast(Any, module).layer_idx)
    merged, speech_keys, speech_values = memory.layer(index)
    batch, heads, length, dim = query.shape
    grouped = (batch, key.shape[1], heads // key.shape[1] * length, dim)  # query heads beside their key head

    bias = cast(MergedLayer, merged).bias[:, None, None]
    to_speech = _unrotated(query, *memory.rotary).reshape(grouped) @ speech_keys.mT
    to_speech = to_speech.reshape(batch, heads, length, -1) * scaling + bias
    to_speech = to_speech.masked_fill(~memory.valid[:, None, None, :], -math.inf)
    to_text = (query.reshape(grouped) @ key.mT).reshape(batch, heads, length, -1) * scaling
    if attention_mask is not None:
        to_text = to_text + attention_mask

    logits = torch.cat([to_speech, to_text], dim=-1)
    weights = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(value.dtype)
    watched = None
    if memory.watched:
        memory.weights[index], watched = weights.split([to_speech.shape[-1], to_text.shape[-1]], dim=-1)
    weights = nn.functional.dropout(weights, dropout)  # 0 outside training
    values = torch.cat([speech_values.to(value.dtype), value], dim=2)
    output = weights.reshape(*grouped[:3], -1) @ values
    return output.reshape(batch, heads, length, dim).transpose(1, 2), watched


def _unrotated(query: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Take the rotary positions back: query (batch, heads, n, dim), cos and sin (batch, n, rotary_dim)."""
    rotary_dim = cos.shape[-1]  # GPT-NeoX rotates a part of each head only
    first, second = query[..., :rotary_dim].chunk(2, dim=-1)
    turned = torch.cat([second, -first], dim=-1)
    back = query[..., :rotary_dim] * cos[:, None] + turned * sin[:, None]
    return torch.cat([back, query[..., rotary_dim:]], dim=-1)


AttentionInterface.register(MERGED, _merged_attention)
AttentionMaskInterface.register(MERGED, eager_mask)
