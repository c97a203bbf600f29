"""What the options of several searches share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kikitori.scorers.options import (
    HOTWORD_SCALE,
    HOTWORDS,
    LM,
    NGRAM,
    PRIOR,
    ScorerOptions,
    Scorers,
    scale_of,
)

NotNegative = Annotated[int, Field(ge=0)]
Need = Literal["ctc", "phones", "decoder"]
"""What a search may need of a model: a CTC head over label units, one over phones, an autoregressive decoder."""
OVER_LABELS: Mapping[str, Sequence[str]] = {LM: ("path",), NGRAM: ("path",), PRIOR: ("path",), HOTWORDS: ()}
"""Scorers of label sequences beside CTC head and decoder, and what may be said of them."""


class Scored:
    """A search with scorers beside, or in place of, its own.

    Attributes:
        SCALES: Scales of scorers that are not named, or without one; what is missing here counts 0.
        scorers: Those that are named.
    """

    SCALES: ClassVar[Mapping[str, float]] = {}
    scorers: Scorers

    def scale(self, name: str) -> float:
        """The scale of a scorer."""
        return scale_of(self.scorers, name, self.SCALES.get(name, 0.0))

    @property
    def hotword_scale(self) -> float:
        """What a letter of a hotword adds, where there are hotwords."""
        return scale_of(self.scorers, HOTWORDS, HOTWORD_SCALE)

    def scorer(self, name: str) -> ScorerOptions:
        """What is said of a scorer."""
        return self.scorers.get(name, ScorerOptions())
