"""The seam between searches and what writes labels: `Decoder`, and what it remembers of each row, `DecoderState`.

A decoder is bound to the utterances of a batch: it knows what it reads before the first label of each. A search starts
it once and appends labels from then on; `DecoderState` may be forked, reordered and cropped in between. Whether the
network is a decoder-only LLM (`llm_decoder`) or the decoder half of an encoder-decoder makes no difference to the
search.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.memory import Layers, Memory, Recurrent


@dataclass(frozen=True, eq=False)
class DecoderState:
    """The key-value cache of a decoder, and states of its recurrent layers, a row for each hypothesis.

    Never modified: every operation returns a new state and the old one stays usable. Keeping an old state costs its
    memory and no time.

    Attributes:
        layers: Keys and values of self-attention per layer.
        valid: Which slots of the cache hold a real position, (batch, slots) bool.
        lengths: Real positions per row, (batch,) int64; also the position id of the next label.
        memory: The speech, for a decoder that attends to it beside the text; shared by the rows of an utterance.
        recurrent: What recurrent layers remember of all that stands before, (batch, ...) each, None where a layer has
            no such state; empty for a decoder with attention alone. No label can be taken back from it.
    """

    layers: Layers
    valid: Tensor
    lengths: Tensor
    memory: Memory | None = None
    recurrent: Recurrent = ()

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.valid.shape[0]

    @property
    def num_slots(self) -> int:
        """Width of the cache, at least the length of the longest row."""
        return self.valid.shape[1]

    def fork(self, n: int) -> "DecoderState":
        """Repeat each row `n` times in place, for example as the start of a beam: rows a, b become a, a, b, b."""
        if n < 1:
            raise ModelError(f"cannot fork a decoder state {n} times", remedy="use 1 or more")
        rows = torch.arange(self.batch_size, device=self.valid.device)
        return self.reorder(rows.repeat_interleave(n))

    def reorder(self, rows: Tensor) -> "DecoderState":
        """Make row i of the new state a copy of `rows[i]`: keeps, permutes, repeats or drops rows.

        Dropping rows also frees the slots and the speech that only they used (waits for the device).
        """
        rows = rows.to(self.valid.device)
        layers = tuple((keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers)
        memory = self.memory and self.memory.reorder(rows)
        recurrent = tuple(each if each is None else each.index_select(0, rows) for each in self.recurrent)
        valid, lengths = self.valid.index_select(0, rows), self.lengths.index_select(0, rows)
        state = DecoderState(layers, valid, lengths, memory, recurrent)
        return _tightened(state) if 0 < len(rows) < self.batch_size else state

    def crop(self, lengths: Tensor) -> "DecoderState":
        """Keep the first `lengths[i]` real positions of row i, 1 to all of them, and drop slots that no row needs.

        Raises:
            ModelError: There are no such positions, or recurrent layers would have to forget some.
        """
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
        if self.recurrent and bool((lengths < self.lengths).any()):
            raise ModelError(
                "no label can be taken back from a recurrent state", remedy="search with greedy or beam search"
            )
        valid = self.valid & (self.valid.cumsum(1) <= lengths[:, None])
        return _tightened(replace(self, valid=valid, lengths=lengths))


@dataclass(frozen=True, eq=False)
class SpeechAttention:
    """Where a decoder attends to while it writes known labels.

    Attributes:
        weights: Of the heads that follow the speech, (utterances, heads, 1 + n, frames), 0 behind the frames of an
            utterance: when the last position of its prefix is read, and when each label is.
        log_probs: Of each label given those before it, (utterances, n), undefined behind `num_labels`.
        median_width: Frames to smooth the weights over, odd.
    """

    weights: Tensor
    log_probs: Tensor
    median_width: int


class Decoder(Protocol):
    """An autoregressive network behind the prefixes of some utterances, such as their speech prompts.

    Hidden states are those that `project` turns into logits, so that a search may project only some of them.
    """

    @property
    def name(self) -> str:
        """Name of the network, for errors."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def eos_id(self) -> int:
        """The label that ends a transcript."""
        ...

    @property
    def vocab_size(self) -> int:
        """Labels that it knows, those that no tokenizer uses among them."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Most positions of prefix and labels together; None without a limit."""
        ...

    @property
    def prefix_lengths(self) -> Tensor:
        """Positions before the first label of each utterance, (utterances,) int64, each at least 1."""
        ...

    @property
    def speech_lengths(self) -> Tensor:
        """Positions of the speech of each utterance, in the prefix or beside it, (utterances,) int64."""
        ...

    @property
    def languages(self) -> Sequence[str | None]:
        """The language of each utterance by its code, where the decoder was told one or has found it out."""
        ...

    @property
    def suppressed(self) -> Sequence[int]:
        """Labels that searches never write."""
        ...

    @property
    def suppressed_first(self) -> Sequence[int]:
        """Labels that no transcript begins with, where EOS stands for an empty one."""
        ...

    def without_speech(self) -> "Decoder | None":
        """The same over speech that is zero, its internal language model; None where a text prompt stands for it."""
        ...

    def prefill(self, labels: Tensor | None = None, num_labels: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read the prefixes and, in the same pass, labels directly behind them.

        Args:
            labels: (utterances, n) int64, such as drafts to verify; None for none.
            num_labels: How many of these count, (utterances,) int64, each 0 to n; all of them if None.

        Returns:
            Hidden states (utterances, 1 + n, dim), of the last position of the prefix and of each label, undefined
            behind `num_labels`; and the state.
        """
        ...

    def append(
        self, labels: Tensor, state: DecoderState, num_labels: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Read labels behind those of a state.

        Args:
            labels: (rows, n) int64, n >= 1; several at once to verify a draft or to catch up in delayed fusion.
            state: Left as it was.
            num_labels: How many of these count, (rows,) int64, each 0 to n; all of them if None.

        Returns:
            Hidden states (rows, n, dim), undefined behind `num_labels`, and the state that includes the labels.
        """
        ...

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., dim) into logits (..., vocab)."""
        ...

    def attention(self, labels: Tensor, num_labels: Tensor) -> SpeechAttention:
        """Where the heads that follow the speech attend to while labels are written.

        Args:
            labels: (utterances, n) int64.
            num_labels: How many of these count, (utterances,) int64, each 0 to n.

        Raises:
            ModelError: There are no such heads.
        """
        ...

    def read_trees(
        self, utterances: Sequence[int], labels: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]
    ) -> Tensor:
        """Read trees of labels, each behind the prefix of an utterance, in one pass without a cache.

        Args:
            utterances: The utterance of each tree.
            labels: The labels of each tree in preorder; each reads the prefix and the labels above it.
            ends: For each label the first one behind it that is not below it.

        Returns:
            Hidden states (contexts, dim): of each tree the last position of its prefix, then its labels.
        """
        ...


def start(decoder: Decoder) -> tuple[Tensor, DecoderState]:
    """Read the prefixes: logits (utterances, vocab) of the first label, and the state."""
    hidden, state = decoder.prefill()
    return decoder.project(hidden[:, 0]), state


def step(
    decoder: Decoder, labels: Tensor, state: DecoderState, num_labels: Tensor | None = None
) -> tuple[Tensor, DecoderState]:
    """As `Decoder.append`, with logits (rows, n, vocab) of the label after each in place of hidden states."""
    hidden, state = decoder.append(labels, state, num_labels)
    return decoder.project(hidden), state


def _tightened(state: DecoderState) -> DecoderState:
    """Drop slots beyond the longest row, after closing gaps where that row has some, and speech that no row reads."""
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
    return replace(state, layers=tuple(layers), valid=valid, memory=memory)
