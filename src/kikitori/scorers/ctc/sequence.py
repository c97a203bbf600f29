"""The CTC head as a scorer of whole hypotheses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from kikitori.model.heads import ctc_loss
from kikitori.scorers.options import CTC
from kikitori.types import Hypothesis


@dataclass(frozen=True, eq=False)
class CTCSequenceScorer:
    """Log-probability of a hypothesis, summed over all CTC paths that write it (papers.md B1.1).

    Attributes:
        log_probs: Of the CTC head, (utterances, frames, labels + 1), blank last.
        lengths: Valid frames, (utterances,).
        spelt: From the labels of a hypothesis to those of the head; None where it cannot write them.
        name: Its name among the scores.
    """

    log_probs: Tensor
    lengths: Tensor
    spelt: Callable[[Sequence[int]], Sequence[int] | None]
    name: str = CTC

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of the utterances; -inf where it does not fit."""
        return [self._scores(row, nbest) for row, nbest in enumerate(nbests)]

    def _scores(self, row: int, nbest: Sequence[Hypothesis]) -> list[float]:
        log_probs = self.log_probs[row : row + 1, : int(self.lengths[row])].double()
        known: dict[tuple[int, ...], float] = {}
        found = []
        for hypothesis in nbest:
            letters = self.spelt(hypothesis.labels)
            key = None if letters is None else tuple(letters)
            if key is not None and key not in known:
                loss = ctc_loss(log_probs, torch.tensor([log_probs.shape[1]]), [key])
                known[key] = -inf if loss.infeasible else -float(loss.total)
            found.append(-inf if key is None else known[key])
        return found
