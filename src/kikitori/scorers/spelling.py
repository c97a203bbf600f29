"""Hypotheses in the label units of what scores them."""

from collections.abc import Sequence
from dataclasses import dataclass

from kikitori.text.units import TokenizerUnits, differing_labels
from kikitori.types import Hypothesis


@dataclass(frozen=True, eq=False)
class Spelling:
    """From the labels of hypotheses (in some units, or as texts without) to those of a scorer."""

    wanted: TokenizerUnits
    units: TokenizerUnits | None

    def __call__(self, nbest: Sequence[Hypothesis]) -> list[Sequence[int]]:
        """Each hypothesis in the scorer's labels: as it is if they know its units, else its text tokenised anew."""
        if self.units is not None and not any(differing_labels(self.units, self.wanted)):
            return [hypothesis.labels for hypothesis in nbest]
        return [self.wanted.encode(hypothesis.text) for hypothesis in nbest]
