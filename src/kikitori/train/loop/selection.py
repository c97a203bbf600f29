"""Which weights a run exports: the mean of its last epochs, or of the best on dev; and when to stop early."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kikitori.train.loop.checkpoint import Checkpoint
from kikitori.train.loop.state import Weights, copy_into, learnt, mean, weights
from kikitori.train.recipe.optim import Run

COPY = "copy"


@dataclass
class Selection:
    """Copies of the weights worth exporting, the best first.

    Without `average_last` an epoch is ranked by its dev score, the first one that the task gives; with it, by how late
    it comes.

    Attributes:
        ranks: A number for each copy, small is good.
        copies: Weights after the epochs chosen.
        stale: Evaluations since the best dev score.
    """

    run: Run
    names: Container[str]
    ranks: list[float] = field(default_factory=list)
    copies: list[Weights] = field(default_factory=list)
    best: float | None = None
    stale: int = 0

    def offer(self, module: nn.Module, epoch: int, scores: dict[str, float]) -> None:
        """Considers the weights after an epoch (from 1) with its dev scores, if it was scored."""
        score = next(iter(scores.values()), None)
        if score is not None:
            improved = self.best is None or score < self.best
            self.best, self.stale = (score, 0) if improved else (self.best, self.stale + 1)
        rank = float(-epoch) if self.run.average_last else score
        wanted = self.run.average_last or self.run.average_best
        if rank is None or (len(self.ranks) == wanted and rank >= self.ranks[-1]):
            return
        place = sum(other <= rank for other in self.ranks)
        self.ranks.insert(place, rank)
        copy = {name: tensor.detach().clone() for name, tensor in learnt(module, self.names).items()}
        self.copies.insert(place, copy)
        del self.ranks[wanted:], self.copies[wanted:]

    @property
    def exhausted(self) -> bool:
        """True if dev has not improved for as long as the recipe's patience."""
        return 0 < self.run.patience <= self.stale

    def apply(self, module: nn.Module) -> bool:
        """Puts the mean of the copies into the module; False if there are none, and the last weights stay."""
        copy_into(weights(module), mean(reversed(self.copies)))
        return bool(self.copies)

    def tensors(self) -> dict[str, Weights]:
        """What a checkpoint keeps."""
        return {f"{COPY}{place}": copy for place, copy in enumerate(self.copies)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in JSON."""
        return {"ranks": self.ranks, "best": self.best, "stale": self.stale}

    def restore(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Goes on from what a checkpoint kept."""
        kept = checkpoint.state["selection"]
        self.ranks, self.best, self.stale = list(kept["ranks"]), kept["best"], kept["stale"]
        copies = (checkpoint.tensors[f"{COPY}{place}"] for place in range(len(self.ranks)))
        self.copies = [{name: tensor.to(device) for name, tensor in copy.items()} for copy in copies]
