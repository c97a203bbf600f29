"""Logit filters: what a search may not write next, whatever the decoder says.

A filter takes scores of the next label, a row for each hypothesis and a column for each label, and gives them back with
-inf where a label is ruled out. It knows what was written so far, so that rules about sequences can be filters too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder


@dataclass(frozen=True)
class Row:
    """A hypothesis of an utterance (by place in the batch) that waits for its next label."""

    utterance: int
    labels: Sequence[int]


LogitFilter = Callable[[Tensor, Sequence[Row]], Tensor]
"""From scores (rows, columns) and their rows to scores in a tensor of its own, or the same if nothing is ruled out."""


def apply_filters(filters: Sequence[LogitFilter], scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Scores behind all filters, in their order."""
    for each in filters:
        scores = each(scores, rows)
    return scores


def min_labels(least: Sequence[int], end: int) -> LogitFilter:
    """Rules the end, which is column `end`, out while a hypothesis has fewer labels than `least` of its utterance."""

    def filtered(scores: Tensor, rows: Sequence[Row]) -> Tensor:
        early = [len(row.labels) < least[row.utterance] for row in rows]
        if not any(early):
            return scores
        scores = scores.clone()
        scores[torch.tensor(early, device=scores.device), end] = -torch.inf
        return scores

    return filtered


def suppress(labels: Sequence[int]) -> LogitFilter:
    """Rules some labels out everywhere."""

    def filtered(scores: Tensor, rows: Sequence[Row]) -> Tensor:  # noqa: ARG001
        return scores.index_fill(1, torch.tensor(labels, dtype=torch.int64, device=scores.device), -torch.inf)

    return filtered


def suppress_first(labels: Sequence[int]) -> LogitFilter:
    """Rules some labels out as the first ones of a hypothesis."""
    everywhere = suppress(labels)

    def filtered(scores: Tensor, rows: Sequence[Row]) -> Tensor:
        first = torch.tensor([not row.labels for row in rows], device=scores.device)
        return torch.where(first[:, None], everywhere(scores, rows), scores) if bool(first.any()) else scores

    return filtered


def decoder_filters(decoder: Decoder, num_labels: int, end: int) -> list[LogitFilter]:
    """What a decoder itself rules out, for a search over the first `num_labels` of its vocabulary."""

    def columns(labels: Sequence[int]) -> list[int]:
        ends = [end] if decoder.eos_id in labels else []
        return [*ends, *(label for label in labels if label < num_labels and label != decoder.eos_id)]

    rules = [(suppress, decoder.suppressed), (suppress_first, decoder.suppressed_first)]
    return [rule(columns(labels)) for rule, labels in rules if labels]
