"""The seams between searches and what scores label sequences, and weighted sums of scores.

A `Scorer` says, in natural logs, what it thinks of every label that may follow a hypothesis, and of ending there. Its
states hold hypotheses as rows; `extend` makes a new state out of any rows of an old one: named twice a hypothesis is
forked, in another order reordered, left out dropped, with no label kept, with several labels it grows by all of them
at once. States are never modified. Every search takes scorers in this form, so that each works in all of them.

A `SequenceScorer` scores whole hypotheses, as rescoring does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.errors import ConfigError
from kikitori.types import Hypothesis

State = TypeVar("State")
Floats = NDArray[np.float64]


class Scorer(Protocol[State]):
    """The seam between searches and what scores labels."""

    @property
    def name(self) -> str:
        """Its name among the scores of a hypothesis."""
        ...

    def start(self, batch: int) -> State:
        """A state of so many empty hypotheses, one for each utterance."""
        ...

    def log_probs(self, state: State, rows: Tensor) -> Tensor:
        """What it gives to each next label of some hypotheses, and to their end: (rows, labels + 1), the end last."""
        ...

    def extend(self, state: State, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[State, Tensor]:
        """A new state of some hypotheses with more labels.

        Args:
            state: The old one.
            rows: The old hypothesis that each new one begins with, (rows,) int64.
            labels: What it goes on with, (rows, n) int64.
            lengths: How many of these count, (rows,) int64, each 0 to n.

        Returns:
            The state, and what the scorer gives to the labels appended, (rows, n), 0 beyond `lengths`.
        """
        ...


class CandidateScorer(Scorer[State], Protocol[State]):
    """A scorer that is asked about a few labels alone, since all of them would take it long."""

    def log_probs_of(self, state: State, rows: Tensor, labels: Tensor) -> Tensor:
        """What it gives to some labels (rows, n), -1 for none, and to the end: (rows, n + 1), -inf for none."""
        ...

    def likeliest(self, state: State, rows: Tensor, most: int) -> Tensor:
        """Labels that it would ask about, best first, (rows, most), -1 where there are no more."""
        ...


class SequenceScorer(Protocol):
    """What scores whole hypotheses."""

    @property
    def name(self) -> str:
        """Its name among the scores of a hypothesis."""
        ...

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of some utterances, its end included, as nested as they are.

        Impossible ones have -inf.
        """
        ...


def add_scaled(totals: Floats, scores: Floats, scale: Floats | float) -> None:
    """Adds scale · score to totals, in place; shapes are broadcast to that of the totals.

    What has the scale 0 counts as 0, even if it is infinite. With any other scale, what is not finite is impossible,
    -inf, also where the scorer is subtracted.
    """
    finite = np.isfinite(scores)
    if finite.all():
        totals += scale * scores
    else:
        totals += scale * np.where(finite, scores, 0.0)
        totals += np.where(finite | (np.asarray(scale) == 0.0), 0.0, -inf)


def weighted(scores: Mapping[str, float], scales: Mapping[str, float]) -> float:
    """The weighted sum of a hypothesis' scores, by the rule of `add_scaled`; -inf where it is not finite.

    Raises:
        ConfigError: There is no score of the name of a scale that is not 0.
    """
    total = np.zeros(1)
    for name, scale in scales.items():
        if scale == 0.0:
            continue
        if name not in scores:
            known = ", ".join(scores) or "none"
            raise ConfigError(
                f"the hypotheses have no score of that name (theirs: {known})",
                where=f"scorers.{name}",
                remedy=f"name a language model with scorers.{name}.path, or leave it out",
            )
        add_scaled(total, np.array([scores[name]]), scale)
    found = float(total[0])
    return found if isfinite(found) else -inf


@dataclass(frozen=True)
class SumState:
    """Hypotheses of a `WeightedSum`.

    Attributes:
        scores: What each scorer has given to each hypothesis so far, before its scale, (rows, scorers) float64.
    """

    states: tuple[Any, ...]
    scores: Tensor


class WeightedSum:
    """Scorers with a scale each (a negative one subtracts) as one scorer; the scores of each are kept, before scaling.

    Sums are those of `add_scaled`: finite or -inf.
    """

    def __init__(self, scorers: Sequence[tuple[Scorer[Any], float]], name: str = "sum") -> None:
        self.name = name
        self.names = tuple(scorer.name for scorer, _ in scorers)
        """Of the scorers, in the order of the scores."""
        self._scorers = [scorer for scorer, _ in scorers]
        self._scales = [scale for _, scale in scorers]

    def start(self, batch: int) -> SumState:
        """A state of so many empty hypotheses."""
        scores = torch.zeros(batch, len(self._scorers), dtype=torch.float64)
        return SumState(tuple(scorer.start(batch) for scorer in self._scorers), scores)

    def log_probs(self, state: SumState, rows: Tensor) -> Tensor:
        """The weighted sum for each next label and the end of hypotheses, (rows, labels + 1) float64 on the CPU."""
        return self._sum(self._each(state, rows))

    def proportional(self, state: SumState, rows: Tensor) -> tuple[Tensor, float]:
        """What the weighted sum of `log_probs` is proportional to, (rows, labels + 1) on the CPU, and the factor.

        Where one scorer alone counts it is what that one gives, as it gives it: to find the best of many labels, the
        sums of all of them would take longer than the scorer itself.
        """
        counting = [place for place, scale in enumerate(self._scales) if scale != 0.0]
        if len(counting) != 1 or self._scales[counting[0]] < 0.0:
            return self.log_probs(state, rows), 1.0
        (only,) = counting
        return self._scorers[only].log_probs(state.states[only], rows).cpu(), self._scales[only]

    def extend(self, state: SumState, rows: Tensor, labels: Tensor, lengths: Tensor) -> tuple[SumState, Tensor]:
        """A new state of some hypotheses with more labels, and what is given to these, (rows, n) float64 on the CPU."""
        results = [s.extend(its, rows, labels, lengths) for s, its in zip(self._scorers, state.states, strict=True)]
        given = [log_probs.cpu().double() for _, log_probs in results]
        scores = state.scores[rows] + torch.stack([log_probs.sum(dim=1) for log_probs in given], dim=1)
        return SumState(tuple(extended for extended, _ in results), scores), self._sum(given)

    def scores(self, state: SumState, rows: Tensor) -> Tensor:
        """What each scorer gives to some hypotheses that end here, before its scale, (rows, scorers) float64."""
        return state.scores[rows] + torch.stack([each[:, -1] for each in self._each(state, rows)], dim=1)

    def total(self, scores: Tensor) -> Tensor:
        """The weighted sum of scores (..., scorers)."""
        return self._sum(scores.unbind(dim=-1))

    def _each(self, state: SumState, rows: Tensor) -> list[Tensor]:
        pairs = zip(self._scorers, state.states, strict=True)
        return [scorer.log_probs(its, rows).cpu().double() for scorer, its in pairs]

    def _sum(self, each: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(each[0])
        for scale, values in zip(self._scales, each, strict=True):
            add_scaled(total.numpy(), values.detach().numpy(), scale)
        return total
