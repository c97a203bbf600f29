"""The decoder-only LLM as a stepwise scorer: embeddings in, logits of the next label out.

The only file that touches the key-value caches of transformers, whose interface moves between releases. A training pass
is `embed`, `forward`, `project`; decoding is `prefill` once, then `step`, and `LLMState` may be forked, reordered and
cropped in between. Rows are padded on the right and padding is masked, so that a row's logits depend on that row alone.
Whether the speech stands in the embeddings or in a `Memory` beside them (`interface`) makes no difference to the
caller. Nothing here switches gradients off: searches run under `torch.inference_mode()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask

from kikitori.errors import ModelError
from kikitori.model.decoder.memory import MERGED, Layers, Memory, Reading

# Factors that some families apply to the logits behind the output matrix (Cohere, Granite, Falcon-H1, Gemma). Families
# disagree on whether one name multiplies or divides, so `project` refuses them rather than guess.
_LOGIT_FACTORS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")

CACHE_ARGUMENT = "cache" if "cache" in signature(create_causal_mask).parameters else "past_key_values"
"""What decoders call their key-value cache: `cache` since transformers 5.24, where the old name warns."""

LEAST_FILLED = 0.9
"""Rows share a prefill on the CPU if the shortest has at least this share of the longest one's positions."""


@dataclass(frozen=True, eq=False)
class LLMState:
    """What the LLM remembers of each row.

    Never modified: every operation returns a new state and the old one stays usable. Keeping an old state costs its
    memory and no time.

    Attributes:
        layers: Keys and values per LLM layer.
        valid: Which slots of the cache hold a real position, (batch, slots) bool.
        lengths: Real positions per row, (batch,) int64; also the position id of the next label.
        memory: The speech, for an interface that keeps it beside the text; shared by the rows of an utterance.
    """

    layers: Layers
    valid: Tensor
    lengths: Tensor
    memory: Memory | None = None

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.valid.shape[0]

    @property
    def num_slots(self) -> int:
        """Width of the cache, at least the length of the longest row."""
        return self.valid.shape[1]

    def fork(self, n: int) -> "LLMState":
        """Repeat each row `n` times in place, for example as the start of a beam: rows a, b become a, a, b, b."""
        if n < 1:
            raise ModelError(f"cannot fork an LLM state {n} times", remedy="use 1 or more")
        rows = torch.arange(self.batch_size, device=self.valid.device)
        return self.reorder(rows.repeat_interleave(n))

    def reorder(self, rows: Tensor) -> "LLMState":
        """Make row i of the new state a copy of `rows[i]`: keeps, permutes, repeats or drops rows.

        Dropping rows also frees the slots and the speech that only they used (waits for the device).
        """
        rows = rows.to(self.valid.device)
        layers = tuple((keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers)
        memory = self.memory and self.memory.reorder(rows)
        state = LLMState(layers, self.valid.index_select(0, rows), self.lengths.index_select(0, rows), memory)
        return _tightened(state) if 0 < len(rows) < self.batch_size else state

    def crop(self, lengths: Tensor) -> "LLMState":
        """Keep the first `lengths[i]` real positions of row i, 1 to all of them, and drop slots that no row needs."""
        lengths = lengths.to(self.lengths)
        if lengths.shape != self.lengths.shape:
            raise ModelError(f"got {tuple(lengths.shape)} lengths to crop {self.batch_size} rows to")
        bad = ((lengths < 1) | (lengths > self.lengths)).nonzero().flatten().tolist()
        if bad:
            row = bad[0]
            raise ModelError(
                f"cannot keep {int(lengths[row])} positions of row {row}, which has {int(self.lengths[row])}",
                remedy="keep at least one position and at most what is there",
            )
        valid = self.valid & (self.valid.cumsum(1) <= lengths[:, None])
        return _tightened(replace(self, valid=valid, lengths=lengths))


def check_llm(llm: PreTrainedModel) -> None:
    """Refuse an LLM with a cache that cannot be cropped (sliding windows, recurrent layers) or with scaled logits.

    Raises:
        ModelError: With the layer kind or the setting at fault; call this when a model is loaded to fail early.
    """
    _check_head(llm)
    kinds = {type(layer) for layer in DynamicCache(config=llm.config).layers}
    if strange := sorted(kind.__name__ for kind in kinds - {DynamicLayer}):
        raise ModelError(
            f"its cache has {', '.join(strange)}, which cannot be forked and cropped",
            where=type(llm).__name__,
            remedy="use an LLM with full attention in every layer, or switch the sliding window off in its config",
        )


def max_positions(llm: PreTrainedModel) -> int | None:
    """Most positions that the LLM was made for, None if its configuration names no limit.

    Beyond it learned positions are an index error, and rotary ones give text that means nothing.
    """
    value = getattr(llm.config, "max_position_embeddings", None)
    return value if isinstance(value, int) and value > 0 else None


def num_embeddings(llm: PreTrainedModel) -> int:
    """Labels that the LLM knows, those that no tokenizer uses among them."""
    table: Any = llm.get_input_embeddings()
    return int(table.num_embeddings)


def embed(llm: PreTrainedModel, labels: Tensor) -> Tensor:
    """Look up the input embeddings of `labels`: (batch, n) int64 to (batch, n, dim)."""
    embeds: Tensor = llm.get_input_embeddings()(labels)
    return embeds


def embed_mixture(llm: PreTrainedModel, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of input embeddings: `labels` and `weights` (batch, n, shown) to (batch, n, dim)."""
    table = cast(Tensor, llm.get_input_embeddings().weight)
    bags, shares = labels.to(table.device).flatten(0, 1), weights.to(table).flatten(0, 1)
    if not bags.numel():
        return table.new_zeros(*labels.shape[:2], table.shape[1])
    sums = torch.nn.functional.embedding_bag(bags, table, per_sample_weights=shares, mode="sum")
    return sums.reshape(*labels.shape[:2], table.shape[1])


def forward(
    llm: PreTrainedModel,
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
    llm: PreTrainedModel,
    embeds: Tensor,
    lengths: Tensor,
    memory: Memory | None,
    layers: Sequence[int],
    *,
    positions: Tensor | None = None,
) -> list[Tensor]:
    """As `forward`, with the states after each of some layers (1 to all but the last, not normalised) before it."""
    lengths = _checked_lengths(lengths, embeds, least=1)
    valid = _valid(lengths, embeds.shape[1])
    if positions is None:
        positions = _positions(torch.zeros_like(lengths), lengths, embeds.shape[1])
    return _body(llm, _cleared(embeds, valid), valid.long(), positions, None, memory, layers)


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights of a pass, by LLM layer.

    Attributes:
        text: From each position of the LLM's input to each, (batch, heads, n, n).
        speech: From each of them to each of the speech's in a memory, (batch, heads, n, positions); empty where the
            speech stands in the input. With merged attention the two together sum to 1, with cross-attention each.
    """

    text: tuple[Tensor, ...]
    speech: tuple[Tensor, ...]


def forward_attention(
    llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, Attention]:
    """As `forward`, with attention written out, which takes heads * n * n numbers per row and layer."""
    lengths = _checked_lengths(lengths, embeds, least=1)
    valid = _valid(lengths, embeds.shape[1])
    positions = _positions(torch.zeros_like(lengths), lengths, embeds.shape[1])
    usual = llm.config._attn_implementation
    if usual != MERGED:
        llm.set_attn_implementation("eager")  # the fast kernels do not tell
    try:
        output, reading = _run(
            llm, _cleared(embeds, valid), valid.long(), positions, None, memory, output_attentions=True
        )
    finally:
        llm.set_attn_implementation(usual)
    speech = () if reading is None else tuple(reading.weights[layer] for layer in sorted(reading.weights))
    return output.last_hidden_state, Attention(tuple(output.attentions), speech)


def forward_tree(llm: PreTrainedModel, embeds: Tensor, ends: Tensor, memory: Memory | None = None) -> Tensor:
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
    return _body(llm, embeds, _added(reads, embeds.dtype), reads.sum(dim=2) - 1, None, memory)[-1]


def project(llm: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Turn hidden states (..., dim) into logits over the vocabulary (..., vocab)."""
    _check_head(llm)
    # In 2-D: the product of a strided 3-D view with a frozen matrix is 14 to 250 times slower in bf16 on CPU.
    model: Any = llm  # transformers types this method in some releases only
    logits: Tensor = model.get_output_embeddings()(hidden.reshape(-1, hidden.shape[-1]))
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def prefill(
    llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, LLMState]:
    """Read the prefix, that is everything before the first label to predict.

    Args:
        llm: A model that passes `check_llm`.
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
    llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, LLMState]:
    """As `prefill`, with hidden states (batch, n, dim) in place of logits, undefined in the padding."""
    check_llm(llm)
    lengths = _checked_lengths(lengths, embeds, least=1)
    sizes: list[int] = lengths.tolist()
    groups = _of_similar_length(sizes) if embeds.device.type == "cpu" else [range(len(sizes))]
    parts = []
    for group in groups:
        rows = torch.tensor(group, device=embeds.device)
        heard = memory if memory is None or len(groups) == 1 else memory.reorder(rows)
        none = torch.zeros(len(group), 0, dtype=torch.bool, device=embeds.device)
        columns = max(sizes[row] for row in group)
        state = LLMState((), none, none.sum(dim=1), heard)
        parts.append((rows, *_append(llm, embeds[rows, :columns], lengths[rows], state)))
    return _together(parts, memory)


def step(
    llm: PreTrainedModel, labels: Tensor, state: LLMState, lengths: Tensor | None = None
) -> tuple[Tensor, LLMState]:
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
    llm: PreTrainedModel, labels: Tensor, state: LLMState, lengths: Tensor | None = None
) -> tuple[Tensor, LLMState]:
    """As `step`, with hidden states (batch, n, dim) in place of logits: some of them can then be projected."""
    if labels.ndim != 2 or labels.shape[0] != state.batch_size or labels.shape[1] < 1:
        raise ModelError(f"labels of shape {tuple(labels.shape)} do not fit a state of {state.batch_size} rows")
    if lengths is None:
        lengths = torch.full_like(state.lengths, labels.shape[1])
    else:
        lengths = _checked_lengths(lengths, labels, least=0)
        labels = labels.masked_fill(~_valid(lengths, labels.shape[1]), 0)
    return _append(llm, embed(llm, labels), lengths, state)


def read_tree(llm: PreTrainedModel, labels: Tensor, layers: Layers, reads: Tensor) -> tuple[Tensor, Layers]:
    """Append the labels of a tree, each of which reads those above it, as if its branch were a whole row.

    Args:
        llm: A model that passes `check_llm`, without speech in a memory.
        labels: (batch, n) int64.
        layers: Keys and values of each layer, (batch, heads, slots, dim), of labels in any order; left as they are.
        reads: Which slots, old ones and then new ones, each label reads, (batch, n, slots + n): all labels before it in
            its branch, from the first position on, and itself; in padding at least itself.

    Returns:
        Hidden states of the last layer (batch, n, dim), and the layers with the new slots.
    """
    embeds, cache = embed(llm, labels), _to_cache(layers)
    hidden = _body(llm, embeds, _added(reads, embeds.dtype), reads.sum(dim=2) - 1, cache, None)[-1]
    grown: Any = cache.layers
    return hidden, tuple((layer.keys, layer.values) for layer in grown)


def _added(reads: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores (batch, 1, n, slots) so that no label reads more than it may.

    Numbers and not truth values: attention that is written out adds them to its scores.
    """
    mask = torch.zeros(reads.shape, dtype=dtype, device=reads.device).masked_fill(~reads, torch.finfo(dtype).min)
    return mask[:, None]


def _append(llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, state: LLMState) -> tuple[Tensor, LLMState]:
    """Run the LLM over `embeds` behind the state; all n columns take a slot, the first `lengths[i]` count."""
    new = _valid(lengths, embeds.shape[1])
    valid = torch.cat([state.valid, new], dim=1)
    cache = _to_cache(state.layers)
    positions = _positions(state.lengths, lengths, embeds.shape[1])
    hidden = _body(llm, _cleared(embeds, new), valid.long(), positions, cache, state.memory)[-1]
    grown: Any = cache.layers
    layers = tuple((layer.keys, layer.values) for layer in grown)
    return hidden, LLMState(layers, valid, state.lengths + lengths, state.memory)


def _body(
    llm: PreTrainedModel,
    embeds: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: DynamicCache | None,
    memory: Memory | None,
    layers: Sequence[int] = (),
) -> list[Tensor]:
    """Hidden states after some layers, then those of the last, (batch, n, dim) each.

    The mask says which slots, old and new, are real, (batch, slots), causal order being that of the slots; or it is
    added to all attention scores, (batch, 1, n, slots).
    """
    more = {"output_hidden_states": True} if layers else {}
    output, _ = _run(llm, embeds, mask, positions, cache, memory, **more)
    return [*(output.hidden_states[layer] for layer in layers), output.last_hidden_state]


def _run(
    llm: PreTrainedModel,
    embeds: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: DynamicCache | None,
    memory: Memory | None,
    **outputs: bool,
) -> tuple[Any, Reading | None]:
    """The LLM without its output matrix, what it gives, as transformers names it, and what it has read of the speech.

    The arguments are those of `_body`, and which outputs to give beside the last hidden states.
    """
    model: Any = llm
    decoder = model.get_decoder()
    inputs: dict[str, Any] = {
        "inputs_embeds": embeds,
        "attention_mask": mask,
        "position_ids": positions,
        CACHE_ARGUMENT: cache,
        "use_cache": cache is not None,
        **outputs,
    }
    if memory is None:
        return decoder(**inputs), None
    if memory.batch_size != len(embeds):
        raise ModelError(f"a memory of {memory.batch_size} rows does not fit {len(embeds)} rows of text")
    reading = Reading(memory, partial(decoder.rotary_emb, embeds, positions), watched="output_attentions" in outputs)
    output = decoder(**inputs, memory=reading)
    if reading.unread:  # lest a release of transformers that drops the keyword leave us with a deaf LLM
        raise ModelError("the LLM did not read the speech", where=type(llm).__name__, remedy="report this")
    return output, reading


def _to_cache(layers: Layers) -> DynamicCache:
    """Wrap the tensors without copying. The cache grows by concatenation and so never writes into them."""
    cache, new_layer = DynamicCache(), cast(type[Any], DynamicLayer)
    for keys, values in layers:
        layer = new_layer()
        layer.lazy_initialization(keys, values)  # notes type and device
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _of_similar_length(lengths: Sequence[int]) -> list[list[int]]:
    """Rows by length, longest first, in groups with little padding: a CPU takes as long for padding as for text."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[row] < LEAST_FILLED * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [sorted(group) for group in groups]


def _together(parts: Sequence[tuple[Tensor, Tensor, LLMState]], memory: Memory | None) -> tuple[Tensor, LLMState]:
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
    return whole([hidden for _, hidden, _ in parts], 1), LLMState(layers, valid, valid.sum(dim=1), memory)


def _tightened(state: LLMState) -> LLMState:
    """Drop the slots beyond the longest row, after closing gaps where that row has some, and unheard speech."""
    num_slots = int(state.lengths.max())
    memory = state.memory and state.memory.tightened()
    if num_slots == state.num_slots:
        return replace(state, memory=memory)
    if bool(state.valid[:, num_slots:].any()):
        order = (~state.valid).long().argsort(dim=1, stable=True)[:, :num_slots]  # (batch, num_slots), real slots first
        valid, layers = state.valid.gather(1, order), []
        for keys, values in state.layers:
            k_index = order[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
            v_index = order[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
            layers.append((keys.gather(2, k_index), values.gather(2, v_index)))
    else:
        valid = state.valid[:, :num_slots]
        layers = [(keys[:, :, :num_slots], values[:, :, :num_slots]) for keys, values in state.layers]
    return LLMState(tuple(layers), valid, state.lengths, memory)


def _valid(lengths: Tensor, num_columns: int) -> Tensor:
    return torch.arange(num_columns, device=lengths.device) < lengths[:, None]


def _positions(start: Tensor, lengths: Tensor, num_columns: int) -> Tensor:
    """Count on from `start`; padding repeats the last real position, lest it overrun a learned position table."""
    columns = torch.arange(num_columns, device=start.device)
    return start[:, None] + torch.minimum(columns, (lengths[:, None] - 1).clamp(min=0))


def _cleared(embeds: Tensor, valid: Tensor) -> Tensor:
    """Zero the padding: a masked position still reaches others if it is infinite or not a number."""
    return embeds.masked_fill(~valid[:, :, None], 0.0)


def _checked_lengths(lengths: Tensor, rows: Tensor, *, least: int) -> Tensor:
    lengths = lengths.to(device=rows.device, dtype=torch.int64)
    if lengths.shape != rows.shape[:1]:
        raise ModelError(f"got lengths of shape {tuple(lengths.shape)} for {rows.shape[0]} rows")
    if len(lengths) == 0 or int(lengths.min()) < least or int(lengths.max()) > rows.shape[1]:
        raise ModelError(
            f"lengths {lengths.tolist()} do not fit rows of {rows.shape[1]} columns",
            remedy=f"give one or more rows of {least} to {rows.shape[1]} positions",
        )
    return lengths


def _check_head(llm: PreTrainedModel) -> None:
    for name in _LOGIT_FACTORS:
        if (factor := getattr(llm.config, name, None)) not in (None, 1, False):
            raise ModelError(
                f"its logits are scaled by {name}={factor}, which is not supported",
                where=type(llm).__name__,
                remedy="use an LLM whose logits are one matrix product",
            )
