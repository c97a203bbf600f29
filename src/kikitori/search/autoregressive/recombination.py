"""Recombination: of hypotheses that are the same text, in other tokens, case or punctuation, only the best fill a beam.

A decoder may yet prefer another one of such hypotheses; so the others go behind whatever is
another text, and are lost only where that fills the beam.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from kikitori.types import Hypothesis


@dataclass(frozen=True)
class Recombination:
    """Which hypotheses are the same text.

    Attributes:
        most: So many of each text come first.
        text: Equal for hypotheses that end with the same text.
        point: Equal for hypotheses that stand at the same point of the same text, whatever follows.
    """

    most: int
    text: Callable[[Sequence[int]], Hashable]
    point: Callable[[Sequence[int]], Hashable]

    def best(self, ended: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Hypotheses, best first, without what is too much of the same text."""
        found, texts = list[Hypothesis](), Counter[Hashable]()
        for each in ended:
            text = self.text(each.labels)
            texts[text] += 1
            if texts[text] <= self.most:
                found.append(each)
        return found


class ReachedTexts:
    """The texts that the hypotheses of an utterance have reached so far, with the scores of the best of each."""

    def __init__(self, same: Recombination) -> None:
        self.same = same
        self._scores: dict[tuple[bool, Hashable], list[float]] = defaultdict(list)

    def takes(self, labels: Sequence[int], score: float, *, ended: bool) -> bool:
        """Whether a hypothesis is among the best of its text so far, however many labels these have; notes it if so."""
        text = self.same.text(labels) if ended else self.same.point(labels)
        scores = self._scores[ended, text]
        among = sum(each >= score for each in scores) < self.same.most
        if among:
            scores.append(score)
        return among
