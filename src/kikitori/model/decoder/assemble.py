"""Prompt, speech and target become one right-padded batch of LLM input embeddings.

In: the segments of text/prompt.py, the speech prompts of the bridge, the transcripts. Out: embeddings, exact lengths,
and the position that predicts each loss label. Rows are packed: the text of a row follows directly on its own last
speech position, so that there is no padding inside a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.memory import Memory
from kikitori.text.prompt import Draft, Prompt, Speech, Target, Text


@dataclass(frozen=True, eq=False)
class AssembledInput:
    """A batch for the LLM.

    Attributes:
        embeds: (batch, n, dim), zero in the padding on the right.
        lengths: Real positions per row, (batch,) int64.
        speech_lengths: Positions of the speech per row, (batch,) int64: among those of `lengths`, or in `memory`.
        target_positions: Rows and columns (flat int64 each); `hidden[target_positions]` are the hidden states that
            predict `next_labels`, row by row. Empty without targets.
        next_labels: The loss labels, each row's target and EOS, flat int64.
        memory: The speech, where the interface keeps it out of `embeds` (model/decoder/interface.py).
    """

    embeds: Tensor
    lengths: Tensor
    speech_lengths: Tensor
    target_positions: tuple[Tensor, Tensor]
    next_labels: Tensor
    memory: Memory | None = None


def assemble(
    llm_embed: Callable[[Tensor], Tensor],
    prompt: Prompt,
    speech_embeds: Tensor,
    speech_lengths: Tensor,
    targets: Sequence[Sequence[int]] | None,
    drafts: Sequence[Sequence[int]] | None = None,
) -> AssembledInput:
    """Lay out the segments of every row.

    Args:
        llm_embed: Input embeddings of the LLM, (batch, n) int64 to (batch, n, dim).
        prompt: What stands around the speech.
        speech_embeds: Speech prompts of the bridge, (batch, positions, dim); cast to the type of the text embeddings.
        speech_lengths: Real positions per row, (batch,) int64.
        targets: Label units per row without BOS and EOS, or None for the prefix from which decoding starts.
        drafts: Label units per row of what a first search has found, if the prompt has a place for them.

    Raises:
        ModelError: Rows do not match, drafts are missing, or nothing stands before the first label to predict.
    """
    batch_size, num_positions, _ = speech_embeds.shape
    speech_sizes: list[int] = speech_lengths.tolist()
    if len(speech_sizes) != batch_size or (targets is not None and len(targets) != batch_size):
        raise ModelError(
            f"{batch_size} speech prompts, {len(speech_sizes)} lengths and "
            f"{'no' if targets is None else len(targets)} targets do not belong together"
        )
    if any(not 0 <= size <= num_positions for size in speech_sizes):
        raise ModelError(f"speech lengths {speech_sizes} do not fit {num_positions} positions")
    if prompt.draft and (drafts is None or len(drafts) != batch_size):
        raise ModelError(f"the prompt takes {batch_size} drafts, and there are {len(drafts or ())}")

    text, speech, predict = _Places(), _Places(), _Places()
    lengths = []
    for row, speech_size in enumerate(speech_sizes):
        column = 0
        for segment in prompt.segments:
            match segment:
                case Text(labels):
                    column = text.add(row, column, labels)
                case Speech():
                    column = speech.add(row, column, range(speech_size))
                case Draft():
                    column = text.add(row, column, prompt.filled_up(drafts[row]) if drafts else ())
                case Target() if targets is not None:
                    predict.add(row, column - 1, (*targets[row], prompt.eos))
                    column = text.add(row, column, targets[row])
                case Target():
                    pass
        lengths.append(column)
    if min(lengths, default=1) < 1 or min(predict.columns, default=0) < 0:
        raise ModelError(
            "a row has neither speech nor text before its first label", remedy="drop utterances without speech"
        )

    device = speech_embeds.device
    speech_rows, speech_columns, frames = speech.tensors(device)
    text_rows, text_columns, text_labels = text.tensors(device)
    predict_rows, predict_columns, next_labels = predict.tensors(device)
    text_embeds = llm_embed(text_labels[None])[0]  # (labels of all rows, dim)
    embeds = text_embeds.new_zeros(batch_size, max(lengths, default=0), speech_embeds.shape[-1])
    embeds = embeds.index_put((text_rows, text_columns), text_embeds)
    embeds = embeds.index_put((speech_rows, speech_columns), speech_embeds[speech_rows, frames].to(embeds.dtype))
    return AssembledInput(
        embeds,
        torch.tensor(lengths, device=device),
        torch.tensor(speech_sizes, device=device),
        (predict_rows, predict_columns),
        next_labels,
    )


class _Places:
    """Cells of the batch and what belongs into each."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.items: list[int] = []

    def add(self, row: int, column: int, items: Sequence[int]) -> int:
        """Place items from a column on; returns the column behind them."""
        self.rows.extend([row] * len(items))
        self.columns.extend(range(column, column + len(items)))
        self.items.extend(items)
        return column + len(items)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and items as int64."""
        cells = torch.tensor([self.rows, self.columns, self.items], dtype=torch.int64).to(device)
        return cells[0], cells[1], cells[2]
