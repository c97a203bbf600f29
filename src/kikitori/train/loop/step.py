"""One step: the gradients of its batches, over all processes."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from kikitori.train.loop.metrics import Metrics
from kikitori.train.parallel import processes
from kikitori.train.parallel.strategy import Strategy
from kikitori.train.tasks.base import BatchPosition, Task
from kikitori.train.timing.stopwatch import Stopwatch


@dataclass
class Gathered:
    """What one step has gathered from its batches so far.

    Attributes:
        batches: Batches taken, unreadable ones included.
        used: Batches whose gradients were summed.
        problem: What is not finite.
        spare: A batch that was readable.
    """

    batches: int = 0
    used: int = 0
    problem: str | None = None
    utt_ids: list[str] = field(default_factory=list)
    spare: Any = None


@dataclass(frozen=True)
class Gradients:
    """Fills `grad` of the task's parameters, together with the other processes.

    Attributes:
        processes: Number of them.
        precision: `float32` or `bfloat16`, as in the recipe.
    """

    task: Task
    strategy: Strategy
    metrics: Metrics
    watch: Stopwatch
    processes: int
    device: torch.device
    precision: str

    def add(
        self, batch: Any, indices: list[int], position: BatchPosition, gathered: Gathered, *, complete: bool
    ) -> None:
        """Adds the gradients of a batch; None is one of which nothing can be read, `complete` says that it is the last.

        All processes take part in a batch: who has none computes another one's, and nothing comes of it.
        """
        used = batch is not None
        if processes.total(int(not used))[0]:
            others = [other for other in processes.gather(batch) if other is not None]
            # It is in the last batch that gradients are exchanged.
            others += [gathered.spare] if complete else []
            batch = batch if used else next(iter(others), None)
        if batch is None or (self.processes == 1 and not used):
            return
        gathered.spare = batch
        with self.watch.part("forward"):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                loss, parts = self.strategy.loss(batch, position)
            value = loss.item()
        if self.processes > 1 or isfinite(value):  # the others wait for gradients, whatever they are
            with self.watch.part("backward"):
                (loss if used else 0.0 * loss).backward()
        if not used:
            return
        gathered.utt_ids += getattr(batch, "utt_ids", ())
        if not isfinite(value):
            gathered.problem = f"the loss is {value}"
            return
        padding = 1.0 - sum(self.task.size([index]) for index in indices) / self.task.size(indices)
        self.metrics.add({"loss": value, **parts, "padding": padding}, batches=1)
        gathered.used += 1

    def average(self, used: int, max_norm: float) -> float:
        """Turns means over processes into those over all batches used, clipped; gives the norm before."""
        parameters = [parameter for parameter in self.task.module.parameters() if parameter.grad is not None]
        for parameter in parameters:
            if parameter.grad is not None and used != self.processes:
                parameter.grad /= used / self.processes
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
