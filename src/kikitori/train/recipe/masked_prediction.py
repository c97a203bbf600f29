"""Recipes for masked prediction: an encoder learns from speech without transcripts."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.base import SpeechTrainingRecipe
from kikitori.train.recipe.components import Encoder, Trainable
from kikitori.train.recipe.types import STRICT, AtLeastOne, Count, ModelPath, Positive, ProperFraction


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
    run: ModelPath | None = None
    layer: Count = 0

    def __post_init__(self) -> None:
        """Checks that the layer is one of a run."""
        if (self.run is None) != (self.layer == 0):
            raise ValueError("run and layer go together")


@dataclass(frozen=True, config=STRICT)
class Masks:
    """What masked prediction hides from the encoder: stretches of time, a fraction of its frames.

    Attributes:
        seconds: Length of a stretch, rounded to whole encoder frames.
    """

    share: ProperFraction = 0.5
    seconds: Positive = 0.4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MaskedPredictionRecipe(SpeechTrainingRecipe):
    """Masked prediction (HuBERT, Hsu et al. 2021)."""

    task: Literal["masked_prediction"]
    encoder: Encoder
    targets: Targets
    masks: Masks

    @property
    def trainable(self) -> dict[str, Trainable]:
        """The encoder."""
        return {"encoder": self.encoder}
