"""What recipes of several tasks share."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.components import Trainable
from kikitori.train.recipe.data import Augment, SpeechData
from kikitori.train.recipe.optim import Optim, Run
from kikitori.train.recipe.types import STRICT, Count


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingRecipe:
    """A training run; each task has a class of its own with the sections that it needs.

    Attributes:
        seed: Decides initial weights, order and augmentation.
        data_root: Folder that `data` and `text` paths are relative to.
        language: Language of the transcripts; it picks the normalizer of the dev scores.
    """

    task: str
    optim: Optim
    run: Run
    seed: Count = 1
    data_root: str = "."
    language: str = "en"

    @property
    def trainable(self) -> dict[str, Trainable]:
        """The components with a policy and a learning rate of their own, by the name of their section."""
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpeechTrainingRecipe(TrainingRecipe):
    """A training run on speech, which may be augmented."""

    data: SpeechData
    augment: Augment = Field(default_factory=Augment)
