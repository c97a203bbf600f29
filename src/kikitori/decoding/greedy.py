"""Greedy decoding of the speech LLM: the most probable label at every step, for a batch at once.

Rows that have ended leave the batch, so that late rows cost no more than they would alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.llm import prefill, step


@dataclass
class GreedyResult:
    """What greedy decoding gives for one row.

    Attributes:
        labels: Labels without EOS.
        score: Log-probability of the labels, EOS included.
        complete: False if the length limit came before EOS.
        llm_passes: Forward passes of the LLM after prefill.
    """

    labels: list[int] = field(default_factory=list)
    score: float = 0.0
    complete: bool = False
    llm_passes: int = 0


@torch.inference_mode()
def greedy(
    llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, *, eos_id: int, max_labels: Sequence[int]
) -> list[GreedyResult]:
    """Writes each row's labels until EOS or its limit.

    Args:
        llm: The LLM.
        embeds: Prefixes, (batch, positions, dim), right-padded.
        lengths: Positions per row, (batch,).
        eos_id: Label that ends a row.
        max_labels: Most labels per row, EOS not counted.
    """
    results = [GreedyResult() for _ in max_labels]
    logits, state = prefill(llm, embeds, lengths)
    rows = list(range(len(results)))
    while rows:
        scores, labels = logits.float().log_softmax(dim=-1).max(dim=-1)
        going = []
        for place, (row, label, score) in enumerate(zip(rows, labels.tolist(), scores.tolist(), strict=True)):
            result = results[row]
            if label == eos_id:
                result.score += score
                result.complete = True
            elif len(result.labels) < max_labels[row]:
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
