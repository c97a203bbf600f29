"""Label-synchronous beam search: the label sequences that scorers like best, one label after the other.

All utterances of a batch go on together: each step is one call of the decoder. At every step the hypotheses that may
still grow and those that have ended compete for the places of the beam, by total / length^exponent, where the end
counts as a label (papers.md B3.1). What has ended is kept, and an utterance is done when no hypothesis that may still
grow can become one of the n best.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.scorers.base import CandidateScorer, SumState, WeightedSum, add_scaled
from kikitori.search.autoregressive.filters import LogitFilter, Row, apply_filters, min_labels
from kikitori.search.autoregressive.recombination import ReachedTexts, Recombination
from kikitori.search.length import Limits
from kikitori.search.options import LabelBeam
from kikitori.types import Hypothesis, NBest

Floats = NDArray[np.float64]
END = -1
"""Column of the end in what scorers give."""


@dataclass(frozen=True)
class PartialScorer:
    """A scorer that only sees the labels which are likeliest without it, and some that it proposes itself.

    Attributes:
        labels: Of each hypothesis so many labels get to it, but at least as many as the beam is wide; None for all.
        proposed: And so many that it proposes.
    """

    scorer: CandidateScorer[Any]
    scale: float
    labels: int | None = None
    proposed: int = 0


@torch.inference_mode()
def beam_search(
    scorer: WeightedSum,
    options: LabelBeam,
    limits: Limits,
    *,
    partial: PartialScorer | None = None,
    most_gain: float = 0.0,
    filters: Sequence[LogitFilter] = (),
    recombination: Recombination | None = None,
) -> list[NBest]:
    """The n-best list of each utterance, best first, equal scores by their labels.

    It holds at least one hypothesis: where none is possible, the empty one with a score of -inf. With a beam that holds
    everything the best label sequence is found; ever wider beams need not be better before that. What has the most
    labels can only end; before the fewest it cannot. Filters rule out labels, the end being the last column. A label
    can add `most_gain` at most, 0 if scores only fall: for knowing when to stop. With recombination the list has no
    text more often than that allows.
    """
    least = [min(limits.min_labels, most) for most in limits.max_labels]
    filters = (*filters, min_labels(least, END))
    utterances = [
        _Utterance(number, options, most, most_gain, recombination) for number, most in enumerate(limits.max_labels)
    ]
    scorers = _Scorers(scorer, partial, filters, len(utterances), options.beam)
    going = utterances
    for written in count():
        if not going:
            break
        gains, labels = scorers.candidates([row for utterance in going for row in utterance.rows])
        starts = np.cumsum([0, *(utterance.size for utterance in going)]).tolist()
        moves = [
            utterance.advance(gains[start:stop], labels[start:stop], written)
            for utterance, (start, stop) in zip(going, pairwise(starts), strict=True)
        ]
        placed = [*zip(going, starts, moves, strict=False)]
        scores = scorers.scores([start + row for _, start, (_, _, ends) in placed for row in ends])
        for utterance in going:
            utterance.take(scores)
        going = [utterance for utterance in going if not utterance.is_done()]
        placed = [move for move in placed if not move[0].is_done()]
        rows = [start + row for _, start, (parents, _, _) in placed for row in parents]
        scorers.extend(rows, [label for _, _, (_, chosen, _) in placed for label in chosen])
    return [utterance.finish(scorers.names) for utterance in utterances]


class _Scorers:
    """The sum and the partial scorer over the hypotheses of all utterances that go on."""

    def __init__(
        self, scorer: WeightedSum, partial: PartialScorer | None, filters: Sequence[LogitFilter], batch: int, beam: int
    ) -> None:
        self._scorer, self._partial, self._filters, self._beam = scorer, partial, filters, beam
        self.names = scorer.names if partial is None else (*scorer.names, partial.scorer.name)
        self._state: SumState = scorer.start(batch)
        self._partial_state: Any = None if partial is None else partial.scorer.start(batch)
        self._given = torch.zeros(batch, dtype=torch.float64)  # by the partial scorer

    def candidates(self, hypotheses: Sequence[Row]) -> tuple[Floats, NDArray[np.int64]]:
        """What some labels add to each hypothesis, and its end: (rows, n + 1), and these labels (rows, n)."""
        rows = torch.arange(len(self._given))
        given, scale = self._scorer.proportional(self._state, rows)
        every = apply_filters(self._filters, given, hypotheses)
        size, partial = every.shape[1] - 1, self._partial
        most = self._beam if partial is None else (partial.labels and max(partial.labels, self._beam))
        if most is None or most >= size:
            labels = torch.arange(size).expand(len(rows), -1)
        else:
            labels = every[:, :-1].topk(most).indices
            if partial is not None and partial.proposed:
                proposed = partial.scorer.likeliest(self._partial_state, rows, partial.proposed)
                known = (proposed[:, :, None] == labels[:, None, :]).any(dim=2)
                labels = torch.cat([labels, proposed.masked_fill(known, -1)], dim=1)
            labels = labels.masked_fill(labels < 0, size).sort(dim=1).values  # of equals the first is taken
            labels = labels.masked_fill(labels == size, -1)
        found = torch.cat([every.gather(1, labels.clamp(min=0)).masked_fill(labels < 0, -inf), every[:, -1:]], dim=1)
        gains = torch.zeros(found.shape, dtype=torch.float64)
        add_scaled(gains.numpy(), found.double().numpy(), scale)
        if partial is not None and partial.scale != 0.0:
            given = partial.scorer.log_probs_of(self._partial_state, rows, labels).cpu().double()
            add_scaled(gains.numpy(), given.numpy(), partial.scale)
        return gains.numpy(), labels.numpy()

    def scores(self, rows: Sequence[int]) -> Iterator[dict[str, float]]:
        """What each scorer gives to hypotheses that end here, by name and before its scale."""
        if not rows:
            return iter(())
        ending = torch.tensor(rows)
        scores = self._scorer.scores(self._state, ending)
        if self._partial is not None:
            nothing = torch.empty(len(rows), 0, dtype=torch.int64)
            ends = self._partial.scorer.log_probs_of(self._partial_state, ending, nothing).cpu().double()
            scores = torch.cat([scores, self._given[ending, None] + ends], dim=1)
        return (dict(zip(self.names, row, strict=True)) for row in scores.tolist())

    def extend(self, rows: Sequence[int], labels: Sequence[int]) -> None:
        """Goes on with some hypotheses, each with a label more."""
        if not rows:
            return
        moves = torch.tensor(rows), torch.tensor(labels)[:, None], torch.ones(len(rows), dtype=torch.int64)
        self._state, _ = self._scorer.extend(self._state, *moves)
        self._given = self._given[moves[0]]
        if self._partial is not None:
            self._partial_state, given = self._partial.scorer.extend(self._partial_state, *moves)
            self._given = self._given + given.cpu().double()[:, 0]


class _Utterance:
    """The beam of one utterance: hypotheses that may grow, all of the same length, and those that have ended."""

    def __init__(
        self,
        number: int,
        options: LabelBeam,
        max_labels: int,
        most_gain: float,
        recombination: Recombination | None,
    ) -> None:
        self._number, self._options, self._most, self._most_gain = number, options, max_labels, most_gain
        self._reached = None if recombination is None else ReachedTexts(recombination)
        self._labels: list[tuple[int, ...]] = [()]
        self._totals = np.zeros(1)
        self._ended: list[Hypothesis] = []
        self._fresh: list[tuple[tuple[int, ...], float, bool, int]] = []
        self._calls = 0

    @property
    def rows(self) -> list[Row]:
        """The hypotheses that may grow."""
        return [Row(self._number, labels) for labels in self._labels]

    @property
    def size(self) -> int:
        """How many hypotheses may grow."""
        return len(self._labels)

    def advance(self, gains: Floats, labels: NDArray[np.int64], written: int) -> tuple[list[int], list[int], list[int]]:
        """One label more.

        Args:
            gains: What each candidate and the end add, (hypotheses, candidates + 1).
            labels: The candidates, (hypotheses, candidates).
            written: Labels that each hypothesis has.

        Returns:
            For each hypothesis that goes on its parent and its new label, and the parents that end.
        """
        totals = self._totals[:, None] + gains
        last = written >= self._most
        complete = (not last) | (gains[:, -1] >= gains.max(axis=1))
        if last:
            totals[:, :-1] = -inf
        if (score_beam := self._options.pruning.score_beam) is not None:
            totals[totals < totals.max() - score_beam] = -inf
        keys = totals / (written + 1) ** self._options.length_exponent
        # Of equal ones those of the better hypothesis with the lower label, wherever they stand in the batch.
        order = np.argsort(-keys, axis=None, kind="stable")
        if (context := self._options.pruning.context) is not None:
            order = self._merged(order, keys, labels, context)
        reached, beam = self._reached, self._options.beam
        best = order[:beam] if reached is None else self._recombined(reached, order, totals, keys, labels)
        # What has ended holds its place in the beam against what is not better.
        before = np.searchsorted(-np.array([each.score for each in self._ended]), -keys.flat[best], side="right")
        best = best[(np.arange(len(best)) + before < self._options.beam) & (keys.flat[best] > -inf)]
        parents, columns = np.unravel_index(best, keys.shape)
        ends = columns == gains.shape[1] - 1
        self._fresh = [
            (self._labels[row], float(keys[row, -1]), bool(complete[row]), self._calls)
            for row in parents[ends].tolist()
        ]
        growing, chosen = parents[~ends].tolist(), labels[parents[~ends], columns[~ends]].tolist()
        self._labels = [(*self._labels[row], label) for row, label in zip(growing, chosen, strict=True)]
        self._totals = totals[parents[~ends], columns[~ends]]
        self._calls += len(growing) > 0
        return growing, chosen, parents[ends].tolist()

    def _merged(
        self, order: NDArray[np.int64], keys: Floats, labels: NDArray[np.int64], context: int
    ) -> NDArray[np.int64]:
        """The possible candidates in their order, of those with the same last labels the first alone."""
        end, seen, kept = keys.shape[1] - 1, set[tuple[int, ...]](), list[int]()
        for candidate in order[keys.flat[order] > -inf].tolist():
            row, column = divmod(candidate, end + 1)
            if column != end:
                last = (*self._labels[row], int(labels[row, column]))[-context:]
                if last in seen:
                    continue
                seen.add(last)
            kept.append(candidate)
        return np.array(kept, np.int64)

    def _recombined(
        self, reached: ReachedTexts, order: NDArray[np.int64], totals: Floats, keys: Floats, labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Of the candidates in their order those that get the places of the beam: each text first that is new."""
        beam, end = self._options.beam, keys.shape[1] - 1
        first, rest = list[int](), list[int]()
        for candidate in order.tolist():
            row, column = divmod(candidate, end + 1)
            if len(first) == beam or keys[row, column] == -inf:
                break
            written = self._labels[row]
            if column == end:
                taken = reached.takes(written, float(keys[row, end]), ended=True)
            else:
                taken = reached.takes((*written, int(labels[row, column])), float(totals[row, column]), ended=False)
            (first if taken else rest).append(candidate)
        chosen = {*first, *rest[: beam - len(first)]}
        return np.array([each for each in order.tolist() if each in chosen], np.int64)

    def take(self, scores: Iterator[dict[str, float]]) -> None:
        """Keeps what has just ended, with what each scorer gives to it."""
        for labels, score, complete, passes in self._fresh:
            ended = Hypothesis(labels, score=score, llm_passes=passes, complete=complete, scores=next(scores))
            self._ended.append(ended)
        self._ended.sort(key=lambda each: (-each.score, each.labels))
        if self._reached is not None:
            self._ended = self._reached.same.best(self._ended)
        del self._ended[max(self._options.nbest, self._options.beam) :]

    def is_done(self) -> bool:
        """Whether nothing that may still grow can become one of the n best, or it is far below the best one by now."""
        if not self._labels:
            return True
        nbest, score_beam = self._options.nbest, self._options.pruning.score_beam
        written, now = len(self._labels[0]), float(self._totals.max())
        if score_beam is not None and self._ended and self._reachable(now) <= self._ended[0].score - score_beam:
            return True
        if len(self._ended) < nbest or self._most_gain == inf:
            return False
        return self._ended[nbest - 1].score >= self._reachable(now + max(self._most_gain, 0.0) * (self._most - written))

    def _reachable(self, total: float) -> float:
        """The highest score of what ends with such a total, now or later."""
        length = self._most + 1 if total < 0.0 else len(self._labels[0]) + 1
        return float(total / length**self._options.length_exponent)

    def finish(self, names: Sequence[str]) -> NBest:
        """The n-best list."""
        if self._ended:
            return tuple(self._ended[: self._options.nbest])
        scores = dict.fromkeys(names, -inf)
        return (Hypothesis((), score=-inf, llm_passes=self._calls, complete=False, scores=scores),)
