"""The decoder-only LLM of transformers: embeddings in, hidden states and logits of the next label out.

A training pass is `embed`, `forward`, `project`; with a key-value cache see `cache`. Rows are padded on the right and
padding is masked, so that a row's logits depend on that row alone. Whether the speech stands in the embeddings or in a
`Memory` beside them (`interface`) makes no difference to the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.attention.masks import Mask, layer_masks
from kikitori.model.decoder.memory import Memory, Reading
from kikitori.model.features import valid_mask

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

CACHE_NAMES = ("cache", "cache_params", "past_key_values")
"""What decoders call their cache: the first since transformers 5.24, the others before, recurrent ones the second."""
# What some families do with the logits behind the output matrix, by the name in their configuration. They disagree on
# whether one name multiplies or divides; that the right one was taken is proved by the probe (`probe`).
_MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere, Falcon-H1
_DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")  # Granite, MiniCPM3
_MULTIPLIED_ALL_THE_SAME = "hyperclovax"
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma, RecurrentGemma, xLSTM
_RESCALED = ("longrope", "dynamic")  # rotary factors that the longest row of a batch decides
_ORIGINAL = "original_max_position_embeddings"


def body_of(llm: "PreTrainedModel") -> Any:
    """The LLM without its output matrix."""
    model: Any = llm
    body = model.get_decoder()
    # Llama 4 names itself, ModernBERT its output matrix.
    return body if body is not model and hasattr(body, "config") else getattr(model, "model", model.base_model)


def text_config(llm: "PreTrainedModel") -> Any:
    """The configuration of the language model, which may be a part of a model that also sees or hears."""
    return llm.config.get_text_config(decoder=True)


def max_positions(llm: "PreTrainedModel") -> int | None:
    """Most positions that the LLM was made for, None if its configuration names no limit.

    Beyond it learned positions are an index error, and rotary ones give text that means nothing. Out of bounds likewise
    is what depends on the rows beside: rotary factors that the longest row of a batch decides (`longrope`), and ties
    between the labels that a sparse index lets a position read.
    """
    config = text_config(llm)
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "index_topk")]
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in _RESCALED:
        limits += [rope.get(_ORIGINAL), getattr(config, _ORIGINAL, None)]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def num_embeddings(llm: "PreTrainedModel") -> int:
    """Labels that the LLM knows, those that no tokenizer uses among them."""
    table: Any = llm.get_input_embeddings()
    return int(table.num_embeddings)


def embed(llm: "PreTrainedModel", labels: Tensor) -> Tensor:
    """Look up the input embeddings of `labels`: (batch, n) int64 to (batch, n, dim)."""
    embeds: Tensor = llm.get_input_embeddings()(labels)
    return embeds


def embed_mixture(llm: "PreTrainedModel", labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of input embeddings: `labels` and `weights` (batch, n, shown) to (batch, n, dim)."""
    table = cast(Tensor, llm.get_input_embeddings().weight)
    bags, shares = labels.to(table.device).flatten(0, 1), weights.to(table).flatten(0, 1)
    if not bags.numel():
        return table.new_zeros(*labels.shape[:2], table.shape[1])
    sums = torch.nn.functional.embedding_bag(bags, table, per_sample_weights=shares, mode="sum")
    return sums.reshape(*labels.shape[:2], table.shape[1])


def forward(
    llm: "PreTrainedModel",
    embeds: Tensor,
    lengths: Tensor,
    memory: Memory | None = None,
    *,
    positions: Tensor | None = None,
) -> Tensor:
    """Run a whole batch without a cache, as in training.

    Args:
        llm: Any decoder-only model of transformers.
        embeds: Input embeddings padded on the right, (batch, n, dim); what stands in the padding does not matter.
        lengths: Real positions per row, (batch,) int64, each 1 to n.
        memory: The speech of each row, if an interface keeps it beside the text.
        positions: Position ids (batch, n) in place of 0, 1, 2, ...

    Returns:
        Hidden states of the last layer, (batch, n, dim), undefined in the padding. Select some, then `project`.
    """
    return forward_layers(llm, embeds, lengths, memory, (), positions=positions)[-1]


def forward_layers(
    llm: "PreTrainedModel",
    embeds: Tensor,
    lengths: Tensor,
    memory: Memory | None,
    layers: Sequence[int],
    *,
    positions: Tensor | None = None,
) -> list[Tensor]:
    """As `forward`, with the states after each of some layers (1 to all but the last, not normalised) before it."""
    lengths = checked_lengths(lengths, embeds, least=1)
    valid = valid_mask(lengths, embeds.shape[1])
    if positions is None:
        positions = position_ids(torch.zeros_like(lengths), lengths, embeds.shape[1])
    return hidden_states(llm, cleared(embeds, valid), valid.long(), positions, None, memory, layers)


def forward_tree(llm: "PreTrainedModel", embeds: Tensor, ends: Tensor, memory: Memory | None = None) -> Tensor:
    """Run a batch of trees without a cache: each position reads those above it, as if its branch were a whole row.

    Args:
        llm: As of `forward`; its position ids are the depths in the tree.
        embeds: Input embeddings in preorder, what is below a position directly behind it: (batch, n, dim), finite.
        ends: For each column the first one behind it that is not below it, (batch, n) int64: n all along a row without
            branches, a column's own number plus 1 in padding, which then reaches nothing.
        memory: The speech of each row, if an interface keeps it beside the text.

    Returns:
        As of `forward`.
    """
    columns = torch.arange(embeds.shape[1], device=embeds.device)
    reads = (columns <= columns[:, None]) & (columns[:, None] < ends[:, None, :])  # (batch, reader, read)
    mask = layer_masks(text_config(llm), reads, embeds.dtype)
    return hidden_states(llm, embeds, mask, reads.sum(dim=2) - 1, None, memory)[-1]


def project(llm: "PreTrainedModel", hidden: Tensor) -> Tensor:
    """Turn hidden states (..., dim) into logits over the vocabulary (..., vocab)."""
    # In 2-D: the product of a strided 3-D view with a frozen matrix is 14 to 250 times slower in bf16 on CPU.
    model: Any = llm  # transformers types this method in some releases only
    logits: Tensor = model.get_output_embeddings()(hidden.reshape(-1, hidden.shape[-1]))
    return _scaled(llm, logits).reshape(*hidden.shape[:-1], logits.shape[-1])


def hidden_states(
    llm: "PreTrainedModel",
    embeds: Tensor,
    mask: Mask | None,
    positions: Tensor,
    cache: "DynamicCache | None",
    memory: Memory | None,
    layers: Sequence[int] = (),
) -> list[Tensor]:
    """Hidden states after some layers, then those of the last, (batch, n, dim) each.

    The mask says which slots, old and new, are real, (batch, slots), causal order being that of the slots; or it is
    added to all attention scores, (batch, 1, n, slots), perhaps another one for each kind of layer (`masks`). None if
    all are real.
    """
    more = {"output_hidden_states": True} if layers else {}
    output, _ = run_body(llm, embeds, mask, positions, cache, memory, **more)
    return [*(output.hidden_states[layer] for layer in layers), output.last_hidden_state]


def run_body(
    llm: "PreTrainedModel",
    embeds: Tensor,
    mask: Mask | None,
    positions: Tensor,
    cache: "DynamicCache | None",
    memory: Memory | None,
    **outputs: bool,
) -> tuple[Any, Reading | None]:
    """The LLM without its output matrix, what it gives, as transformers names it, and what it has read of the speech.

    The arguments are those of `hidden_states`, and which outputs to give beside the last hidden states.
    """
    body = body_of(llm)
    inputs: dict[str, Any] = {
        "inputs_embeds": embeds,
        "attention_mask": mask,
        "position_ids": positions,
        cache_argument(type(body).forward): cache,
        "use_cache": cache is not None,
        **outputs,
    }
    if memory is None:
        return body(**inputs), None
    if memory.batch_size != len(embeds):
        raise ModelError(f"a memory of {memory.batch_size} rows does not fit {len(embeds)} rows of text")
    reading = Reading(memory, partial(body.rotary_emb, embeds, positions), watched="output_attentions" in outputs)
    output = body(**inputs, memory=reading)
    if reading.unread:  # lest a release of transformers that drops the keyword leave us with a deaf LLM
        raise ModelError("the LLM did not read the speech", where=type(llm).__name__, remedy="report this")
    return output, reading


def position_ids(start: Tensor, lengths: Tensor, num_columns: int) -> Tensor:
    """Count on from `start`; padding repeats the last real position, lest it overrun a learned position table."""
    columns = torch.arange(num_columns, device=start.device)
    return start[:, None] + torch.minimum(columns, (lengths[:, None] - 1).clamp(min=0))


def cleared(embeds: Tensor, valid: Tensor) -> Tensor:
    """Zero the padding: a masked position still reaches others if it is infinite or not a number."""
    return embeds.masked_fill(~valid[:, :, None], 0.0)


def checked_lengths(lengths: Tensor, rows: Tensor, *, least: int) -> Tensor:
    """Lengths (batch,) as int64 where the rows (batch, n, ...) are.

    Raises:
        ModelError: One is not between `least` and n, there are others than rows, or there is none.
    """
    lengths = lengths.to(device=rows.device, dtype=torch.int64)
    if lengths.shape != rows.shape[:1]:
        raise ModelError(f"got lengths of shape {tuple(lengths.shape)} for {rows.shape[0]} rows")
    if len(lengths) == 0 or int(lengths.min()) < least or int(lengths.max()) > rows.shape[1]:
        raise ModelError(
            f"lengths {lengths.tolist()} do not fit rows of {rows.shape[1]} columns",
            remedy=f"give one or more rows of {least} to {rows.shape[1]} positions",
        )
    return lengths


@lru_cache
def cache_argument(forward_pass: Callable[..., Any]) -> str:
    """The name under which a decoder takes its cache; one that it does not know would vanish without a word."""
    names = signature(forward_pass).parameters
    return next((name for name in CACHE_NAMES if name in names), CACHE_NAMES[-1])


@dataclass(frozen=True)
class _Scale:
    """What a family does with the product of the output matrix."""

    factor: float
    caps: tuple[float, ...]


_scales: "WeakKeyDictionary[PreTrainedModel, _Scale]" = WeakKeyDictionary()


def _scaled(llm: "PreTrainedModel", logits: Tensor) -> Tensor:
    scale = _scales.get(llm)
    if scale is None:
        scale = _scales[llm] = _scale(text_config(llm))
    if scale.factor != 1.0:
        logits = logits * scale.factor
    for cap in scale.caps:
        logits = (logits / cap).tanh() * cap
    return logits


def _scale(config: Any) -> _Scale:
    factor = 1.0
    for name in _MULTIPLIERS:
        factor *= _number(config, name)
    for name in _DIVISORS:
        value = _number(config, name)
        factor *= value if config.model_type == _MULTIPLIED_ALL_THE_SAME else 1 / value
    return _Scale(factor, tuple(cap for name in _CAPS if (cap := getattr(config, name, None))))


def _number(config: Any, name: str) -> float:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and value else 1.0
