"""The label-synchronous loop of the speech LLM: one label per row and step, for a batch at once, with the KV cache.

Searches that write one label after the other differ only in how they choose it. Rows that have ended leave the batch,
so that late rows cost no more than they would alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import isnan

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import prefill, step

Choose = Callable[[Tensor, Sequence[int]], Tensor]
"""From log-probabilities (rows, vocab), -inf where a label is not allowed, and the rows' places in the batch to one
label per row, (rows,)."""


@dataclass
class LabelRow:
    """What was written for one row.

    Attributes:
        labels: Labels without EOS.
        score: Log-probability of the labels, EOS included, as the LLM gives it: before EOS is ruled out or a
            distribution is sharpened; NaN if its numbers are not finite, which ends the row.
        complete: False if the length limit came before EOS.
        llm_passes: Forward passes of the LLM after prefill.
    """

    labels: list[int] = field(default_factory=list)
    score: float = 0.0
    complete: bool = False
    llm_passes: int = 0


@torch.inference_mode()
def write_labels(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    choose: Choose,
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
) -> list[LabelRow]:
    """Writes each row's labels until EOS or its limit.

    Args:
        llm: The LLM.
        prefix: What the LLM reads before the first label.
        choose: Picks the next labels.
        eos_id: Label that ends a row.
        max_labels: Most labels per row, EOS not counted; stronger than `min_labels`.
        min_labels: EOS is ruled out while a row has fewer labels.
    """
    results = [LabelRow() for _ in max_labels]
    logits, state = prefill(llm, prefix.embeds, prefix.lengths, prefix.memory)
    rows = list(range(len(results)))
    for num_written in count():  # every row that is still in the batch has so many labels
        log_probs = logits.float().log_softmax(dim=-1)
        labels = choose(_without(log_probs, eos_id) if num_written < min_labels else log_probs, rows)
        scores = log_probs.gather(1, labels[:, None])[:, 0]
        going = []
        for place, (row, label, score) in enumerate(zip(rows, labels.tolist(), scores.tolist(), strict=True)):
            result = results[row]
            if isnan(score):  # the LLM gives no numbers for this row
                result.score = score
            elif label == eos_id:
                result.score += score
                result.complete = True
            elif num_written < max_labels[row]:
                result.labels.append(label)
                result.score += score
                going.append(place)
        if not going:
            break
        if len(going) < len(rows):
            keep = torch.tensor(going, device=labels.device)
            state, labels = state.reorder(keep), labels[keep]
            rows = [rows[place] for place in going]
        logits, state = step(llm, labels[:, None], state)
        logits = logits[:, -1]
        for row in rows:
            results[row].llm_passes += 1
    return results


def _without(log_probs: Tensor, label: int) -> Tensor:
    return log_probs.index_fill(1, torch.tensor([label], device=log_probs.device), -torch.inf)
