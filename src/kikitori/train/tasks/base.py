"""The seam between the training loop and what it trains: batches, losses and dev scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from kikitori.data.speech import SpeechLoader


@dataclass(frozen=True)
class BatchPosition:
    """Where in the training a batch of an epoch stands, both from 0.

    Attributes:
        progress: Fraction of the training done, 0 to 1.
    """

    epoch: int
    batch: int
    progress: float


class Task(Protocol):
    """What is trained."""

    @property
    def module(self) -> nn.Module:
        """Everything that learns or is saved."""
        ...

    @property
    def speech(self) -> Sequence[SpeechLoader]:
        """The recordings that it reads, if any."""
        ...

    def batches(self, epoch: int) -> Sequence[list[int]]:
        """The batches of an epoch as indices; a pure function of the epoch."""
        ...

    def load(self, indices: list[int], epoch: int) -> Any:
        """Reads a batch (called ahead, in another thread); None if nothing in it can be used."""
        ...

    def loss(self, batch: Any, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise and its parts for the log."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Dev scores; the first one is the one to minimise. Empty without dev data."""
        ...

    def data_digest(self) -> str:
        """A digest of what is trained on, in its order."""
        ...

    def data_counts(self) -> dict[str, int]:
        """How much is trained on, by what it is."""
        ...

    def component(self, parameter: str) -> str:
        """What a parameter is part of, by its name: the recipe's section (`llm`), or `heads`."""
        ...

    def lr_factor(self, parameter: str) -> float:
        """Factor on the learning rate by parameter name."""
        ...

    def unfreeze_at(self, parameter: str) -> int:
        """The optimiser step at which a parameter begins to learn, by its name."""
        ...

    def export(self, directory: Path) -> None:
        """Writes the model folder for use."""
        ...

    def size(self, indices: list[int]) -> float:
        """How much memory a batch takes, compared with others."""
        ...

    def describe(self, batch: Any) -> list[str]:
        """What a loaded batch holds, for a dry run."""
        ...

    def remarks(self) -> list[str]:
        """What the user should know after an epoch, such as utterances that could not be used."""
        ...
