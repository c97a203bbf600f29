"""The decoder half of an encoder-decoder (AED) model as a `Decoder`, which attends to the encoder's frames.

Labels stand behind a prompt (of Whisper: start of transcript, language, task). Keys and values of cross-attention are
made once per utterance; the queries of all its hypotheses meet them in one product. The layers are those of
transformers, whatever the family (see `layout`), with the loop over them written out here, so that the cache is the
immutable one of every search (`DecoderState`) and a tree of labels can be read in one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kikitori.errors import ModelError
from kikitori.model.decoder.base import DecoderState, SpeechAttention
from kikitori.model.decoder.encoder_decoder.layout import DecoderLayout
from kikitori.model.decoder.memory import Layers, Memory
from kikitori.model.features import valid_mask


@dataclass(frozen=True, eq=False)
class CrossAttentionDecoder:
    """A decoder behind the frames and the prompts of some utterances; a `Decoder`.

    Attributes:
        network: That of transformers, such as its `WhisperDecoder`.
        layout: What its family calls its parts.
        output: Its output matrix.
        memory: Keys and values of cross-attention, see `read_frames`; one row for each utterance.
        prompts: Labels before the transcript, (utterances, n) int64, n >= 1.
        eos_id: The label that ends a transcript.
        max_positions: Most positions of prompt and labels together.
        frame_size: Numbers in a frame of the encoder.
        suppressed: Labels that are never written.
        suppressed_first: Labels that no transcript begins with.
        languages: The language of each utterance by its code, where it is known.
        alignment_heads: Layer and number of the heads of cross-attention that follow the speech.
    """

    network: Any
    layout: DecoderLayout
    output: Any
    memory: Memory
    prompts: Tensor
    eos_id: int
    max_positions: int
    frame_size: int
    suppressed: Sequence[int] = ()
    suppressed_first: Sequence[int] = ()
    languages: Sequence[str | None] = ()
    alignment_heads: Sequence[tuple[int, int]] = ()

    @property
    def name(self) -> str:
        """Class of the network."""
        return type(self.network).__name__

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.prompts.device

    @property
    def vocab_size(self) -> int:
        """Rows of the output matrix."""
        return int(self.output.out_features)

    @property
    def prefix_lengths(self) -> Tensor:
        """Positions of the prompt of each utterance, (utterances,)."""
        return torch.full_like(self.memory.lengths, self.prompts.shape[1])

    @property
    def speech_lengths(self) -> Tensor:
        """Frames of each utterance, (utterances,)."""
        return self.memory.lengths

    def prefill(self, labels: Tensor | None = None, num_labels: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read the prompts and, directly behind them in the same pass, labels; see `Decoder`."""
        sizes, none = self.prefix_lengths, torch.zeros(len(self.prompts), 0, dtype=torch.int64, device=self.device)
        labels = none if labels is None else labels
        counts = torch.full_like(sizes, labels.shape[1]) if num_labels is None else num_labels.to(sizes)
        empty = DecoderState((), none.bool(), torch.zeros_like(sizes), self.memory)
        hidden, state = self.append(torch.cat([self.prompts, labels], dim=1), empty, sizes + counts)
        return hidden[:, self.prompts.shape[1] - 1 :], state

    def append(
        self, labels: Tensor, state: DecoderState, num_labels: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Read labels behind those of a state; see `Decoder`."""
        if (memory := state.memory) is None:
            raise ModelError("got a state without speech", where=self.name, remedy="start with prefill")
        width, old = labels.shape[1], state.lengths
        counts = torch.full_like(old, width) if num_labels is None else num_labels.to(old)
        new, columns = valid_mask(counts, width), torch.arange(width, device=self.device)
        positions = (old[:, None] + columns).masked_fill(~new, 0)
        below = columns <= columns[:, None]
        reads = torch.cat([state.valid[:, None].expand(-1, width, -1), below.expand(len(old), -1, -1)], dim=2)
        hidden, layers = self._run(labels.masked_fill(~new, self.eos_id), positions, reads, state.layers, memory)
        return hidden, DecoderState(layers, torch.cat([state.valid, new], dim=1), old + counts, memory)

    def attention(self, labels: Tensor, num_labels: Tensor) -> SpeechAttention:
        """Where the alignment heads attend to while labels are written; see `Decoder`."""
        if not self.alignment_heads:
            raise ModelError(
                "no heads of the decoder are known to follow the speech", where=self.name, remedy="use a CTC head"
            )
        size, width = self.prompts.shape[1], self.prompts.shape[1] + labels.shape[1]
        columns, memory = torch.arange(width, device=self.device), self.memory
        counts = num_labels.to(self.prefix_lengths)
        read = torch.cat([self.prompts, labels.masked_fill(~valid_mask(counts, labels.shape[1]), self.eos_id)], dim=1)
        reads = (columns <= columns[:, None]).expand(len(read), -1, -1)
        queries: list[Tensor] = []
        hidden, _ = self._run(read, columns.expand(len(read), -1), reads, (), memory, queries)
        log_probs = self.project(hidden[:, size - 1 : -1]).float().log_softmax(dim=-1)
        attended, found = _attended(memory), []
        for layer, head in self.alignment_heads:
            asked, keys = queries[layer][:, head, size - 1 :], memory.layers[layer][0][:, head]
            scores = (asked @ keys.transpose(1, 2)).float() / keys.shape[-1] ** 0.5
            if attended is not None:
                scores = scores.masked_fill(~attended[:, 0], -torch.inf)
            found.append(scores.softmax(dim=-1))
        given = log_probs.gather(2, read[:, size:, None])[..., 0]
        return SpeechAttention(torch.stack(found, dim=1), given, int(self.network.config.median_filter_width))

    def without_speech(self) -> "CrossAttentionDecoder":
        """The same behind frames that are zero: its internal language model (papers.md B3.1)."""
        zero = self.memory.layers[0][0].new_zeros(len(self.prompts), 1, self.frame_size)
        return replace(self, memory=read_frames(self.network, self.layout, zero))

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., dim) into logits (..., vocab)."""
        logits: Tensor = self.output(hidden.reshape(-1, hidden.shape[-1]))
        return logits.reshape(*hidden.shape[:-1], self.vocab_size)

    def read_trees(
        self, utterances: Sequence[int], labels: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]
    ) -> Tensor:
        """Read trees of labels in one pass, each label those above it; see `Decoder`."""
        size = self.prompts.shape[1]
        widths = [size + len(tree) for tree in labels]
        which, columns = torch.tensor(utterances, device=self.device), torch.arange(max(widths), device=self.device)
        read = torch.full((len(labels), len(columns)), self.eos_id, device=self.device)
        until = (columns + 1).repeat(len(labels), 1)  # padding sees itself alone
        read[:, :size] = self.prompts[which]
        for row, (width, tree, stops) in enumerate(zip(widths, labels, ends, strict=True)):
            read[row, size:width] = torch.tensor(tree, dtype=torch.int64)
            until[row, :size] = width
            until[row, size:width] = torch.tensor(stops, dtype=torch.int64) + size
        reads = (columns <= columns[:, None]) & (columns[:, None] < until[:, None, :])  # (trees, reader, read)
        hidden, _ = self._run(read, reads.sum(dim=2) - 1, reads, (), self.memory.reorder(which))
        return torch.cat([states[size - 1 : width] for states, width in zip(hidden, widths, strict=True)])

    def _run(
        self,
        labels: Tensor,
        positions: Tensor,
        reads: Tensor,
        old: Layers,
        memory: Memory,
        asked: list[Tensor] | None = None,
    ) -> tuple[Tensor, Layers]:
        """All layers over some labels.

        Args:
            labels: (rows, n) int64.
            positions: Their position ids, (rows, n).
            reads: Which slots of the cache and new labels each label reads, (rows, n, slots + n) bool.
            old: Keys and values of self-attention so far, empty at the start.
            memory: Those of cross-attention.
            asked: Gets the queries of cross-attention of each layer, (rows, heads, n, head_dim).

        Returns:
            Hidden states (rows, n, dim), and keys and values with those of the labels.
        """
        network, layout, grown = self.network, self.layout, []
        places, attended = _places(memory), _attended(memory)
        hidden = layout.embed(network, labels, positions)
        turn = layout.rotation(network, hidden, positions)
        for index, layer in enumerate(network.layers):
            own, cross = layer.self_attn, layer.encoder_attn
            states = layout.own_norm(layer)(hidden)
            queries, keys = turn(_heads(own.q_proj(states), own), _heads(own.k_proj(states), own))
            values = _heads(own.v_proj(states), own)
            if old:
                keys, values = torch.cat([old[index][0], keys], dim=2), torch.cat([old[index][1], values], dim=2)
            grown.append((keys, values))
            found = scaled_dot_product_attention(queries, *_every(own, keys, values), attn_mask=reads[:, None])
            hidden = hidden + layout.out(own)(found.transpose(1, 2).flatten(2))
            queries = _heads(cross.q_proj(layout.cross_norm(layer)(hidden)), cross)
            if asked is not None:
                asked.append(queries)
            found = _attend(queries, *memory.layers[index], places, attended)
            hidden = hidden + layout.out(cross)(found.transpose(1, 2).flatten(2))
            hidden = hidden + layout.feed_forward(layer, hidden)
        return layout.final_norm(network)(hidden), tuple(grown)


def read_frames(network: Any, layout: DecoderLayout, frames: Tensor, lengths: Tensor | None = None) -> Memory:
    """Keys and values of cross-attention over frames (utterances, frames, dim), the first `lengths` of each or all."""
    read, layers = layout.read(network, frames), []
    for layer in network.layers:
        cross = layer.encoder_attn
        layers.append(_every(cross, _heads(cross.k_proj(read), cross), _heads(cross.v_proj(read), cross)))
    every = torch.full((len(frames),), frames.shape[1], device=frames.device)
    return Memory((), tuple(layers), every if lengths is None else lengths.to(every))


def _heads(states: Tensor, attention: Any) -> Tensor:
    """(batch, n, dim) as (batch, heads, n, head_dim)."""
    heads: Tensor = states.unflatten(2, (-1, attention.head_dim))  # type: ignore[no-untyped-call]
    return heads.transpose(1, 2)


def _every(attention: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (batch, heads, n, head_dim) for each head of the queries, of which several may share some."""
    shared = attention.q_proj.out_features // attention.k_proj.out_features
    return (keys, values) if shared == 1 else (keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1))


def _places(memory: Memory) -> tuple[Tensor, Tensor] | None:
    """The utterance of each row and the row's number among those of that utterance; None if each has one, in order."""
    if memory.rows is None:
        return None
    order = memory.rows.argsort(stable=True)
    ordered = memory.rows[order]
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return memory.rows, numbers


def _attended(memory: Memory) -> Tensor | None:
    """Which frames of each utterance are attended to, (utterances, 1, 1, frames) bool; None if all are."""
    frames = memory.layers[0][0].shape[2]
    return None if int(memory.lengths.min()) == frames else valid_mask(memory.lengths, frames)[:, None, None]


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, places: tuple[Tensor, Tensor] | None, attended: Tensor | None
) -> Tensor:
    """Cross-attention of queries (rows, heads, n, head_dim) to keys and values (utterances, heads, frames, head_dim).

    The rows of an utterance stand behind one another, so that keys and values are never copied.
    """
    if places is None:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=attended)
    most, size = int(places[1].max()) + 1, queries.shape[2]
    together = queries.new_zeros(len(keys), most, *queries.shape[1:])
    together[places] = queries
    found = scaled_dot_product_attention(together.transpose(1, 2).flatten(2, 3), keys, values, attn_mask=attended)
    apart: Tensor = found.unflatten(2, (most, size))  # type: ignore[no-untyped-call]
    return apart.transpose(1, 2)[places]
