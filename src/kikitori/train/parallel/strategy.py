"""Who computes a step: this process alone, several with a copy of the model each, or several with a piece of it each.

The last two are torch's own: `DistributedDataParallel` (DDP) and `fully_shard` (FSDP2). Both leave in `grad` the mean
over the processes of what each has summed over its batches; a process alone is the mean of one.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from kikitori.errors import ConfigError
from kikitori.train.parallel import processes
from kikitori.train.recipe.optim import Run
from kikitori.train.tasks.base import BatchPosition, Task

LAYERDROP = ("layerdrop", "encoder_layerdrop")
Loss = tuple[Tensor, dict[str, float]]


class Strategy(Protocol):
    """What the training loop asks of those who compute."""

    @property
    def sharded(self) -> bool:
        """Whether a process holds but a piece of each parameter."""
        ...

    def enter_stage(self) -> None:
        """After other parameters have begun to learn."""
        ...

    def loss(self, batch: Any, position: BatchPosition) -> Loss:
        """The task's loss of a batch."""
        ...

    def partial(self) -> AbstractContextManager[None]:
        """Inside, gradients stay where they are: further batches of the step follow."""
        ...

    def evaluate(self) -> dict[str, float]:
        """The task's dev scores, the same ones for every process."""
        ...

    def remarks(self) -> list[str]:
        """The task's remarks after an epoch."""
        ...


def build_strategy(task: Task, run: Run, device: torch.device, num_processes: int) -> Strategy:
    """The strategy that a recipe and the number of its processes ask for.

    Raises:
        ConfigError: The model cannot be sharded.
    """
    if num_processes == 1:
        return Alone(task)
    return Sharded(task, device, num_processes) if run.sharding == "fsdp" else Replicated(task, device)


class Alone:
    """One process."""

    sharded = False

    def __init__(self, task: Task) -> None:
        self.task = task

    def enter_stage(self) -> None:
        """Nothing to do."""

    def loss(self, batch: Any, position: BatchPosition) -> Loss:
        """The task's loss of a batch."""
        return self.task.loss(batch, position)

    def partial(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    def evaluate(self) -> dict[str, float]:
        """The task's dev scores."""
        return self.task.evaluate()

    def remarks(self) -> list[str]:
        """The task's remarks."""
        return self.task.remarks()


class _Losses(nn.Module):
    """A task as the module that torch's wrappers ask for: its forward pass is the loss."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module = task.module
        self.task = task

    def forward(self, batch: Any, position: BatchPosition) -> Loss:
        return self.task.loss(batch, position)

    def evaluate(self) -> dict[str, float]:
        return self.task.evaluate()

    def remarks(self) -> list[str]:
        return self.task.remarks()


class Replicated:
    """DDP: a copy of the model in every process; gradients are reduced while the backward pass goes on.

    Layers that LayerDrop skips and heads that find nothing in a batch have no gradient there. DDP is told so: what no
    process has used has none afterwards either, and AdamW leaves it as it is, as with one process.
    """

    sharded = False

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        self.losses = _Losses(task)
        self.learning: list[str] = []
        # DDP warns where its first step finds nothing unused; here it always finds this one.
        self.losses.register_parameter("unused", nn.Parameter(torch.zeros(1, device=device)))

    def enter_stage(self) -> None:
        """Wraps the module anew: DDP asks once what learns."""
        learning = [name for name, parameter in self.losses.named_parameters() if parameter.requires_grad]
        if learning != self.learning:
            self.learning = learning
            # That it sends the first process's batch-norm statistics to the others changes nothing: before a step the
            # loop has made them alike.
            self.ddp = DistributedDataParallel(self.losses, find_unused_parameters=True, gradient_as_bucket_view=True)

    def loss(self, batch: Any, position: BatchPosition) -> Loss:
        """The task's loss of a batch."""
        loss: Loss = self.ddp(batch, position)
        return loss

    def partial(self) -> AbstractContextManager[None]:
        """Nothing is sent."""
        return self.ddp.no_sync()

    def evaluate(self) -> dict[str, float]:
        """The first process decodes dev."""
        scores = self.task.evaluate() if processes.rank() == 0 else {}
        first: dict[str, float] = processes.gather(scores)[0]
        return first

    def remarks(self) -> list[str]:
        """The task's remarks of this process's batches."""
        return self.task.remarks()


class Sharded:
    """FSDP2: of each parameter, its gradient and its averages a process holds one piece.

    Encoder and LLM go to the device layer by layer, each in pieces, so that they need not fit there as a whole. A layer
    is put together when its turn comes; what lies outside of layers, such as embeddings, bridge and heads, stays
    together from the forward pass to the end of the backward pass. Decoding dev takes all processes, which do the same.

    Raises:
        ConfigError: Layers would be skipped by some processes alone, or parameters begin to learn later.
    """

    sharded = True

    def __init__(self, task: Task, device: torch.device, num_processes: int) -> None:
        _check_shardable(task)
        mesh = init_device_mesh(device.type, (num_processes,))
        for part in reversed([*task.module.modules()]):  # inner ones first
            if isinstance(part, GradientCheckpointingLayer):
                fully_shard(part, mesh=mesh)
        self.losses = _Losses(task)
        fully_shard(self.losses, mesh=mesh)
        self.root = cast(FSDPModule, self.losses)  # its class is another one now
        self.root.set_reduce_scatter_unused_params(True)
        for name in ("evaluate", "remarks"):  # they use the model as the forward pass does
            register_fsdp_forward_method(self.losses, name)

    def enter_stage(self) -> None:
        """Nothing to do: there is one stage."""

    def loss(self, batch: Any, position: BatchPosition) -> Loss:
        """The task's loss of a batch."""
        loss: Loss = self.losses(batch, position)
        return loss

    @contextmanager
    def partial(self) -> Iterator[None]:
        """Whole gradients are summed up in each process."""
        self.root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.root.set_requires_gradient_sync(True)

    def evaluate(self) -> dict[str, float]:
        """All processes decode dev, each layer together."""
        scores = self.losses.evaluate()
        self.root.reshard()
        first: dict[str, float] = processes.gather(scores)[0]
        return first

    def remarks(self) -> list[str]:
        """The task's remarks, for which it may ask the model."""
        lines = self.losses.remarks()
        self.root.reshard()
        return lines


def _check_shardable(task: Task) -> None:
    where = "run.sharding"
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise ConfigError(
            f"fsdp needs torch 2.13, this is {torch.__version__}", where=where, remedy="install a newer one"
        )
    for part in task.module.modules():
        if not isinstance(part, PreTrainedModel):
            continue
        if any(p.requires_grad for p in part.parameters()) and any(
            getattr(part.config, name, 0.0) for name in LAYERDROP
        ):
            what = f"LayerDrop of {part.config.model_type} skips a layer in one process that others wait for"
            raise ConfigError(what, where=where, remedy="set encoder.changes: {layerdrop: 0.0}, or leave fsdp out")
    if any(task.unfreeze_at(name) for name, parameter in task.module.named_parameters() if parameter.requires_grad):
        what = "with fsdp everything that learns does so from the first step"
        raise ConfigError(what, where=where, remedy="leave unfreeze_at out, or train a second run")
