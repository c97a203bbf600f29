"""The decoder-only LLM as a `Decoder`: bound to the input that it reads before the first label of each utterance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.base import DecoderState, SpeechAttention
from kikitori.model.decoder.cache import append, read
from kikitori.model.decoder.llm import embed, forward, forward_tree, max_positions, num_embeddings, project
from kikitori.model.decoder.probe import check_decoding, check_scoring, reads_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_POSITIONS = 2**14
"""Positions of one pass where every branch of a tree is a row."""


@dataclass(frozen=True, eq=False)
class LLMDecoder:
    """An LLM behind speech prompts or texts, whatever the interface; a `Decoder`.

    Attributes:
        llm: A decoder-only model of transformers that passes `check_decoding` for searches, `check_scoring` for trees.
        prefix: What it reads before the first label, a row for each utterance.
        eos_id: The label that ends a transcript.
    """

    llm: "PreTrainedModel"
    prefix: AssembledInput
    eos_id: int

    @property
    def name(self) -> str:
        """Class of the LLM."""
        return type(self.llm).__name__

    @property
    def device(self) -> torch.device:
        """Where the LLM computes."""
        return self.prefix.embeds.device

    @property
    def vocab_size(self) -> int:
        """Labels that the LLM both reads and writes; Llama 3.2 Vision reads some that it never writes."""
        written: Any = self.llm.get_output_embeddings()
        return min(num_embeddings(self.llm), int(written.weight.shape[0]))

    @property
    def max_positions(self) -> int | None:
        """Most positions that the LLM was made for."""
        return max_positions(self.llm)

    @property
    def prefix_lengths(self) -> Tensor:
        """Positions of the input before the first label, (utterances,)."""
        return self.prefix.lengths

    def without_speech(self) -> None:
        """Its prompt stands for it, see `kikitori.scorers.internal_lm`."""

    @property
    def languages(self) -> Sequence[str | None]:
        """None of each: an LLM writes whatever it was trained on."""
        return [None] * len(self.prefix.lengths)

    @property
    def speech_lengths(self) -> Tensor:
        """Positions of the speech, in the input or in its memory, (utterances,)."""
        return self.prefix.speech_lengths

    @property
    def suppressed(self) -> Sequence[int]:
        """None: an LLM may write every label."""
        return ()

    @property
    def suppressed_first(self) -> Sequence[int]:
        """None likewise."""
        return ()

    def prefill(self, labels: Tensor | None = None, num_labels: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read the prefixes and, directly behind them in the same pass, labels; see `Decoder`."""
        check_decoding(self.llm)
        prefix, sizes = self.prefix, self.prefix.lengths
        embeds, lengths, most = prefix.embeds, sizes, 0
        if labels is not None and labels.shape[1]:
            most = labels.shape[1]
            counts = torch.full_like(sizes, most) if num_labels is None else num_labels.to(sizes)
            lengths = sizes + counts
            width, columns = int(lengths.max()), embeds.shape[1]
            embeds = torch.nn.functional.pad(embeds, (0, 0, 0, max(0, width - columns)))
            rows, places = (torch.arange(most, device=sizes.device) < counts[:, None]).nonzero(as_tuple=True)
            behind = embed(self.llm, labels[rows, places][None])[0].to(embeds.dtype)
            embeds = embeds.index_put((rows, sizes[rows] + places), behind)
        hidden, state = read(self.llm, embeds, lengths, prefix.memory)
        columns_of = (sizes - 1)[:, None] + torch.arange(1 + most, device=sizes.device)
        rows_of = torch.arange(len(sizes), device=sizes.device)[:, None]
        return hidden[rows_of, columns_of.clamp(max=hidden.shape[1] - 1)], state

    def append(
        self, labels: Tensor, state: DecoderState, num_labels: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Read labels behind those of a state; see `Decoder`."""
        return append(self.llm, labels, state, num_labels)

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., dim) into logits (..., vocab)."""
        return project(self.llm, hidden)

    def attention(self, labels: Tensor, num_labels: Tensor) -> SpeechAttention:  # noqa: ARG002
        """Not that of an LLM; see `Decoder`."""
        raise ModelError("its attention does not say when words are said", where=self.name, remedy="use a CTC head")

    def read_trees(
        self, utterances: Sequence[int], labels: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]
    ) -> Tensor:
        """Read trees of labels in one pass with tree attention; see `Decoder`.

        Where the LLM cannot read trees (recurrent layers, ALiBi), every branch is a row.
        """
        check_scoring(self.llm)
        if not reads_trees(self.llm):
            return self._read_branches(utterances, labels, ends)
        prefix, device = self.prefix, self.device
        which = torch.tensor(utterances, device=device)
        starts: list[int] = prefix.lengths[which].tolist()
        widths = [size + len(each) for size, each in zip(starts, labels, strict=True)]
        flat = torch.tensor([label for each in labels for label in each], dtype=torch.int64, device=device)
        nodes = embed(self.llm, flat[None])[0].split([len(each) for each in labels])
        embeds = prefix.embeds.new_zeros(len(labels), max(widths), prefix.embeds.shape[2])
        until = torch.arange(1, max(widths) + 1, device=device).repeat(len(labels), 1)  # padding sees itself alone
        for row, (size, width, utterance) in enumerate(zip(starts, widths, utterances, strict=True)):
            embeds[row, :size] = prefix.embeds[utterance, :size]
            embeds[row, size:width] = nodes[row].to(embeds.dtype)
            until[row, :size] = width
            until[row, size:width] = torch.tensor(ends[row], dtype=torch.int64, device=device) + size
        hidden = forward_tree(self.llm, embeds, until, prefix.memory and prefix.memory.reorder(which))
        spans = zip(hidden, starts, widths, strict=True)
        return torch.cat([states[size - 1 : width] for states, size, width in spans])

    def _read_branches(
        self, utterances: Sequence[int], labels: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]
    ) -> Tensor:
        """As `read_trees`, a row for every path from a prefix to a leaf."""
        prefix, device = self.prefix, self.device
        starts: list[int] = prefix.lengths.tolist()
        paths = [
            (tree, utterance, path)
            for tree, utterance in enumerate(utterances)
            for path in _paths(ends[tree])  # each node's place among its tree's labels
        ]
        firsts = [sum(1 + len(each) for each in labels[:tree]) for tree in range(len(labels))]
        contexts: Tensor | None = None
        paths.sort(key=lambda item: starts[item[1]] + len(item[2]))  # rows of similar length share a pass
        for batch in _batches([starts[utterance] + len(path) for _, utterance, path in paths]):
            rows = [paths[index] for index in batch]
            lengths = [starts[utterance] + len(path) for _, utterance, path in rows]
            embeds = prefix.embeds.new_zeros(len(rows), max(lengths), prefix.embeds.shape[2])
            for row, (tree, utterance, path) in enumerate(rows):
                size = starts[utterance]
                embeds[row, :size] = prefix.embeds[utterance, :size]
                text = torch.tensor([labels[tree][node] for node in path], dtype=torch.int64, device=device)
                embeds[row, size : lengths[row]] = embed(self.llm, text[None])[0].to(embeds.dtype)
            which = torch.tensor([utterance for _, utterance, _ in rows], device=device)
            memory = prefix.memory and prefix.memory.reorder(which)
            hidden = forward(self.llm, embeds, torch.tensor(lengths, device=device), memory)
            if contexts is None:
                contexts = hidden.new_zeros(sum(1 + len(each) for each in labels), hidden.shape[2])
            for states, (tree, utterance, path), length in zip(hidden, rows, lengths, strict=True):
                places = [firsts[tree], *(firsts[tree] + 1 + node for node in path)]
                contexts[places] = states[starts[utterance] - 1 : length]
        return prefix.embeds[:0, 0] if contexts is None else contexts


def _paths(ends: Sequence[int]) -> list[list[int]]:
    """The nodes on the way to each leaf of a tree in preorder; of an empty tree the way of no node."""
    found: list[list[int]] = []
    above: list[int] = []
    for node, end in enumerate(ends):
        above = [*(each for each in above if ends[each] > node), node]
        if end == node + 1:
            found.append(above)
    return found or [[]]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows by number, shortest first, in batches of at most `MAX_POSITIONS`."""
    batches: list[list[int]] = []
    for row, length in enumerate(lengths):
        if not batches or (len(batches[-1]) + 1) * length > MAX_POSITIONS:
            batches.append([])
        batches[-1].append(row)
    return batches


@torch.no_grad()
def text_decoder(llm: "PreTrainedModel", before: Sequence[int], *, eos_id: int, batch_size: int = 1) -> LLMDecoder:
    """An LLM behind the same labels in every row, such as BOS and a text prompt, without speech."""
    device = llm.device
    rows = torch.tensor([before], dtype=torch.int64, device=device).expand(batch_size, -1)
    none = torch.zeros(batch_size, dtype=torch.int64, device=device)
    nowhere = torch.zeros(0, dtype=torch.int64, device=device)
    lengths = none + len(before)
    return LLMDecoder(llm, AssembledInput(embed(llm, rows), lengths, none, (nowhere, nowhere), nowhere), eos_id)
