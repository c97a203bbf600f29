"""Label-synchronous generation: one label per row and step, for a batch at once, with the key-value cache.

Searches that write one label after the other differ only in how they choose it. Rows that have ended leave the batch,
so that late rows cost no more than they would alone.
"""

from collections.abc import Callable, Sequence
from itertools import count
from math import isnan

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder, start, step
from kikitori.scorers.options import SPEECH_LLM
from kikitori.search.autoregressive.filters import LogitFilter, Row, apply_filters, min_labels
from kikitori.search.length import Limits
from kikitori.types import Hypothesis, NBest

SelectLabels = Callable[[Tensor, Sequence[int]], Tensor]
"""From log-probabilities (rows, vocab), -inf where a label is ruled out, and the rows' places in the batch to one
label per row, (rows,)."""


@torch.inference_mode()
def generate(
    decoder: Decoder, select: SelectLabels, limits: Limits, filters: Sequence[LogitFilter] = ()
) -> list[NBest]:
    """Write each utterance's labels until EOS or its limit: one hypothesis for each.

    Its score is the log-probability of the labels, EOS included, as the decoder gives it: before labels are ruled out
    or a distribution is sharpened; NaN if the decoder's numbers are not finite, which ends the row.
    """
    eos_id, most = decoder.eos_id, limits.max_labels
    if limits.min_labels:
        filters = (*filters, min_labels([limits.min_labels] * len(most), eos_id))
    labels: list[list[int]] = [[] for _ in most]
    scores, lowest, complete = [0.0] * len(most), [0.0] * len(most), [False] * len(most)
    logits, state = start(decoder)
    rows = list(range(len(most)))
    for num_written in count():  # every row that is still in the batch has so many labels
        log_probs = logits.float().log_softmax(dim=-1)
        hypotheses = [Row(row, labels[row]) for row in rows] if filters else ()
        chosen = select(apply_filters(filters, log_probs, hypotheses), rows)
        gained = log_probs.gather(1, chosen[:, None])[:, 0]
        going = []
        for place, (row, label, score) in enumerate(zip(rows, chosen.tolist(), gained.tolist(), strict=True)):
            if isnan(score):  # the decoder gives no numbers for this row
                scores[row] = lowest[row] = score
                continue
            if label == eos_id:
                complete[row] = True
            elif num_written < most[row]:
                labels[row].append(label)
                going.append(place)
            else:
                continue
            scores[row] += score
            lowest[row] = min(lowest[row], score)
        if not going:
            break
        if len(going) < len(rows):
            keep = torch.tensor(going, device=chosen.device)
            state, chosen = state.reorder(keep), chosen[keep]
            rows = [rows[place] for place in going]
        logits, state = step(decoder, chosen[:, None], state)
        logits = logits[:, -1]
    written = zip(labels, scores, complete, map(len, labels), lowest, strict=True)
    return [generated(*row) for row in written]


def greedy(decoder: Decoder, limits: Limits, filters: Sequence[LogitFilter] = ()) -> list[NBest]:
    """Write each utterance's most probable labels until EOS or its limit, see `generate`."""
    return generate(decoder, _most_probable, limits, filters)


def generated(labels: Sequence[int], score: float, complete: bool, passes: int, lowest: float | None = None) -> NBest:
    """The one hypothesis of an utterance that a decoder has written."""
    written = Hypothesis(
        tuple(labels),
        score=score,
        llm_passes=passes,
        complete=complete,
        scores={SPEECH_LLM: score},
        least_log_prob=lowest,
    )
    return (written,)


def _most_probable(log_probs: Tensor, _: Sequence[int]) -> Tensor:
    return log_probs.argmax(dim=-1)
