"""The sections of a recipe for masked prediction: what is predicted, and what is hidden."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.settings import STRICT, AtLeastOne, Count, NotNegative, Positive


@dataclass(frozen=True, config=STRICT)
class Targets:
    """What masked prediction predicts: the clusters of frames, by k-means.

    The frames are those of log-mel features, or the states of an encoder that has learnt already: HuBERT's first and
    second iteration.

    Attributes:
        clusters: Number of clusters.
        upsample: Targets per encoder frame; many sounds are shorter than a frame of 80 ms.
        run: Hub id, encoder folder or earlier run whose states are clustered; None takes log-mel features.
        layer: Its layer (1-based).
    """

    clusters: Annotated[int, Field(ge=2, le=65536)] = 100
    upsample: AtLeastOne = 1
    run: str | None = None
    layer: Count = 0

    def __post_init__(self) -> None:
        """Checks that the layer is one of a run."""
        if (self.run is None) != (self.layer == 0):
            raise ValueError("run and layer go together")


@dataclass(frozen=True, config=STRICT)
class Masks:
    """What masked prediction hides from the encoder: stretches of time.

    Attributes:
        share: Share of the encoder frames that is hidden.
        seconds: Length of a stretch, rounded to whole encoder frames.
        unmasked_weight: Weight of the cross-entropy of the frames that are not hidden, beside that of those that are.
    """

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    seconds: Positive = 0.4
    unmasked_weight: NotNegative = 0.0
