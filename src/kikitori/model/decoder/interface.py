"""The interface: how the LLM gets at the speech, "prefix", "merged_attention" or "cross_attention".

In: the speech prompt of the bridge, the text prompt, the transcripts. Out: the LLM's input (`AssembledInput`). The
prefix puts the speech into that input. The other two leave text alone there and make a `Memory` of the speech, which
every LLM layer reads for itself, so that the LLM spends nothing on speech positions ("Integration vs. Combination";
the formulas are our reading of it, see docs/papers.md). Searches see no difference.

The LLM itself is not rebuilt: merged attention replaces the attention function that transformers looks up by name, and
cross-attention is a hook before each layer. Both are without parameters and without state; what they need comes with
the forward pass as the keyword `memory`. Without it the LLM is the plain text model that it was.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput, assemble
from kikitori.model.decoder.memory import MERGED, Memory, Reading
from kikitori.model.features import mask_tail
from kikitori.text.prompt import Prompt

FAMILIES = ("gpt_neox", "llama", "qwen2", "qwen3")
"""LLMs whose layers hand the memory on to their attention, and which rotate queries half against half."""

CLOSED = 1e-20  # the gate of merged attention at first, and the least that it counts for
GATE_SPEED = 10.0  # AdamW moves a parameter by about one learning rate a step; a gate has further to go than a weight


class Interface(Protocol):
    """From the speech prompt to the LLM's input; every interface is also an `nn.Module`."""

    def __call__(
        self,
        llm_embed: Callable[[Tensor], Tensor],
        prompt: Prompt,
        speech_embeds: Tensor,
        speech_lengths: Tensor,
        targets: Sequence[Sequence[int]] | None,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> AssembledInput:
        """Lay out prompt, speech and targets; the arguments are those of `assemble`."""
        ...

    def open(self) -> None:
        """Start with all gates open, for an LLM that has nothing to lose."""
        ...


class PrefixInterface(nn.Module):
    """The speech prompt stands in the LLM's input, between the parts of the text prompt."""

    def forward(
        self,
        llm_embed: Callable[[Tensor], Tensor],
        prompt: Prompt,
        speech_embeds: Tensor,
        speech_lengths: Tensor,
        targets: Sequence[Sequence[int]] | None,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> AssembledInput:
        """See `Interface`."""
        return assemble(llm_embed, prompt, speech_embeds, speech_lengths, targets, drafts)

    def open(self) -> None:
        """There are no gates."""


class MemoryInterface(nn.Module):
    """Text alone stands in the LLM's input, and every LLM layer reads the speech from memory.

    Args:
        layers: `MergedLayer` or `CrossLayer`, one for each LLM layer.
    """

    def __init__(self, layers: "Iterable[MergedLayer | CrossLayer]") -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        llm_embed: Callable[[Tensor], Tensor],
        prompt: Prompt,
        speech_embeds: Tensor,
        speech_lengths: Tensor,
        targets: Sequence[Sequence[int]] | None,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> AssembledInput:
        """See `Interface`; the text before and after the speech becomes one."""
        text = assemble(llm_embed, prompt, speech_embeds[:, :0], torch.zeros_like(speech_lengths), targets, drafts)
        speech_embeds = mask_tail(speech_embeds, speech_lengths)  # what is masked still reaches others if it is NaN
        remembered = tuple(layer(speech_embeds) for layer in self.layers)
        memory = Memory(list(self.layers), remembered, speech_lengths)
        return replace(text, speech_lengths=speech_lengths, memory=memory)

    def open(self) -> None:
        """See `Interface`."""
        for layer in self.layers:
            nn.init.constant_(cast(Tensor, layer.gate), 1 / GATE_SPEED)


@dataclass(frozen=True)
class _Heads:
    """Attention heads of the LLM, which those of the interface copy."""

    queries: int
    keys: int  # fewer than queries with grouped-query attention
    dim: int

    @staticmethod
    def of(config: PreTrainedConfig) -> "_Heads":
        queries = int(config.num_attention_heads)
        keys = getattr(config, "num_key_value_heads", None) or queries
        return _Heads(queries, int(keys), int(getattr(config, "head_dim", None) or config.hidden_size // queries))


class _SpeechLayer(nn.Module):
    """What an LLM layer knows of the speech: its own projections to keys and values."""

    def __init__(self, dim: int, heads: _Heads, *, key_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.keys = nn.Linear(dim, heads.keys * heads.dim, bias=key_bias)
        self.values = nn.Linear(dim, heads.keys * heads.dim, bias=False)

    def forward(self, speech_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, heads, positions, head_dim) of the speech (batch, positions, dim)."""
        return _split(self.keys(speech_embeds), self.heads.dim), _split(self.values(speech_embeds), self.heads.dim)


class MergedLayer(_SpeechLayer):
    """Merged attention in one LLM layer: one softmax over the speech and the text so far.

    h'_u = softmax(Q_u K^T / sqrt(d)) V with K = [W_K^enc z_1..z_T ; W_K h_1..h_u], V likewise (papers.md B1.3), and a
    learned bias b per head on the scores of the speech. Speech keys stand at no position: they are not rotated and the
    queries meet them before rotation.

    b = log(10 |g| + 1e-20) with a gate g that starts at 1e-20: at b = -43.7 the LLM is as it was, whatever its queries.
    As a parameter itself, b would have a gradient of the size of exp(b) and all that way to go, one learning rate a
    step. The gradient of g does not depend on how small g is, so the first step brings b to about log(10 lr).

    Where the LLM adds a bias to its keys, it stands in speech keys too. All scores of a query share its share of them,
    which may be larger than any b; a text key at the query's own position has just that of an unrotated one.

    Args:
        dim: Size of an LLM embedding.
        heads: The LLM's heads.
        key_bias: The LLM's own, (heads * head_dim,), if it has one.
    """

    def __init__(self, dim: int, heads: _Heads, key_bias: Tensor | None = None) -> None:
        super().__init__(dim, heads, key_bias=key_bias is not None)
        if key_bias is not None:
            self.keys.bias.data.copy_(key_bias)
        self.gate = nn.Parameter(torch.full((heads.queries,), CLOSED))

    @property
    def bias(self) -> Tensor:
        """What the scores of the speech get in each head, (heads,)."""
        return (GATE_SPEED * self.gate.float().abs() + CLOSED).log()


class CrossLayer(_SpeechLayer):
    """Cross-attention before one LLM layer: h + tanh(10 g) W_O MHA(W_Q LN(h), W_K z, W_V z), no positions.

    The gate g starts at 0, where the LLM is as it was (the gating of Alayrac et al. 2022, "Flamingo"). With random
    weights in the LLM and an open gate this is the decoder of an AED model.

    Args:
        dim: Size of an LLM embedding.
        heads: The LLM's heads.
        dropout: Dropout on attention weights.
    """

    def __init__(self, dim: int, heads: _Heads, dropout: float) -> None:
        super().__init__(dim, heads)
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Linear(dim, heads.queries * heads.dim, bias=False)
        self.output = nn.Linear(heads.queries * heads.dim, dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def read(self, hidden: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Add to hidden states (batch, n, dim) what they find in the valid (batch, positions) speech."""
        heard = nn.functional.scaled_dot_product_attention(
            self._queries(hidden),
            keys,
            values,
            attn_mask=valid[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.heads.keys < self.heads.queries,
        )
        return self._updated(hidden, heard)

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
        return _split(self.queries(self.norm(hidden)), self.heads.dim)

    def _updated(self, hidden: Tensor, heard: Tensor) -> Tensor:
        update: Tensor = (GATE_SPEED * self.gate).tanh() * self.output(heard.transpose(1, 2).flatten(2))
        return hidden + update


def build_interface(kind: str, llm: PreTrainedModel) -> PrefixInterface | MemoryInterface:
    """The interface of a configuration, closed: kind `prefix`, `merged_attention` or `cross_attention`.

    The last two prepare `llm` to read a memory; preparing it twice does no harm.

    Raises:
        ModelError: An unknown kind, or an LLM that it is not made for.
    """
    if kind == "prefix":
        return PrefixInterface()
    if kind not in ("merged_attention", "cross_attention"):
        raise ModelError(f"unknown interface {kind!r}", remedy="use prefix, merged_attention or cross_attention")
    config: Any = llm.config
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"{kind} is not made for an LLM of type {config.model_type}",
            remedy=f"use the prefix interface, or one of {', '.join(FAMILIES)}",
        )
    decoder: Any = llm.get_decoder()
    dim, heads = int(config.hidden_size), _Heads.of(config)
    if kind == "merged_attention":
        llm.set_attn_implementation(MERGED)
        return MemoryInterface(MergedLayer(dim, heads, _key_bias(layer, heads)) for layer in decoder.layers)
    for index, layer in enumerate(decoder.layers):
        layer.register_forward_pre_hook(partial(_cross_attention, index), with_kwargs=True)
    return MemoryInterface(CrossLayer(dim, heads, float(config.attention_dropout)) for _ in decoder.layers)


def _key_bias(layer: Any, heads: _Heads) -> Tensor | None:
    """What an LLM layer adds to every key, (heads * head_dim,)."""
    if hasattr(layer, "attention"):  # GPT-NeoX, with query, key and value of each head side by side
        together: Tensor | None = layer.attention.query_key_value.bias
        return None if together is None else together.detach().reshape(heads.keys, 3, heads.dim)[:, 1].flatten()
    bias: Tensor | None = layer.self_attn.k_proj.bias
    return None if bias is None else bias.detach()


def _cross_attention(
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


def _split(states: Tensor, head_dim: int) -> Tensor:
    """(batch, n, heads * head_dim) to (batch, heads, n, head_dim)."""
    return states.reshape(*states.shape[:-1], -1, head_dim).transpose(1, 2)


AttentionInterface.register(MERGED, _merged_attention)
AttentionMaskInterface.register(MERGED, eager_mask)
