"""A draft of what is being written: what it proposes next, kept in line with what has been written.

A draft is still right after a slip. Where what is written departs from it, the two are aligned anew by edit distance,
and the draft goes on from the place that fits the written labels best: behind a label that was substituted, before one
that the draft has missed, behind those that it has too many.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HOPE = 1.0, 0.0
"""Proposals that count as right and as wrong before any was tried."""
FORGET = 0.98
"""What older proposals count when a new one has been tried."""


class Draft:
    """The draft of one row, with how many of its proposals were right and wrong: the older, the less they count."""

    def __init__(self, labels: Sequence[int]) -> None:
        self._labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self._numbers = np.arange(len(labels) + 1)
        self._distances = self._numbers  # edits between what is written and the first 0, 1, ... labels of the draft
        self._place = 0
        self._pending: list[int] = []  # written, but not in the distances yet
        self.right, self.wrong = HOPE

    @property
    def reliability(self) -> float:
        """Share of proposals that were right of late, between 0 and 1."""
        return self.right / (self.right + self.wrong)

    def ahead(self, most: int) -> list[int]:
        """The next labels that it proposes, at most so many."""
        proposed: list[int] = self._labels[self._place : self._place + most].tolist()
        return proposed

    def write(self, label: int) -> None:
        """Notes the label that is written next."""
        proposal = self.ahead(1)
        self._pending.append(label)
        if proposal:
            self.right, self.wrong = FORGET * self.right, FORGET * self.wrong
        if proposal == [label]:
            self.right += 1.0
            self._place += 1
            return
        self.wrong += len(proposal)
        if len(self._labels):
            self._align()

    def _align(self) -> None:
        """Finds the place with the fewest edits.

        Of equals one behind the label just written comes first, then what a substitution leads to: in simulation that
        spares a sixth of the passes after slips.
        """
        for label in self._pending:
            same = self._labels == label
            in_place = self._distances[:-1] + ~same  # the label stands for that of the draft
            distances = self._distances + 1  # the draft has missed the label
            distances[1:] = np.minimum(distances[1:], in_place)
            # The draft has labels too many: the fewest edits at any place before, and one for each label from there.
            self._distances = np.minimum.accumulate(distances - self._numbers) + self._numbers
        self._pending = []
        cost = 2 * self._distances
        cost[1:] -= same & (self._distances[1:] == in_place)
        best = np.flatnonzero(cost == cost.min())
        self._place = int(best[np.abs(best - (self._place + 1)).argmin()])


def pass_size(reliabilities: Sequence[float], available: Sequence[int], price: float) -> int:
    """Labels of their drafts that rows share a pass for: as many as bring most labels for what the pass costs.

    `reliabilities` and `available` labels are those of each row's draft; each further label of all rows costs `price`,
    in passes without any.
    """
    size, cost, gain = 0, 1.0, 1.0  # a pass without any brings a label
    reach = [1.0] * len(available)  # probability that a row comes so far
    while True:
        reach = [
            0.0 if size >= most else so_far * rate
            for so_far, rate, most in zip(reach, reliabilities, available, strict=True)
        ]
        more = sum(reach) / len(reach)
        if more * cost <= price * gain:
            return size
        size, cost, gain = size + 1, cost + price, gain + more
