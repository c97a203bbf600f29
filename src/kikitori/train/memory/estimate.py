"""What training takes of memory, estimated before it begins."""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer

from kikitori.train.recipe.optim import Run

COPIES_OF_ADAMW = 2  # its two averages
SHARED = (2, 8, 64)
"""Numbers of processes that a GPU's memory is held against."""
SPARE = 0.1
"""Share of a GPU for libraries, messages and what its allocator cannot use."""


@dataclass(frozen=True)
class Estimate:
    """Bytes that training takes.

    Attributes:
        copies: Weights worth exporting, kept beside.
        activations: What the forward pass of the largest batch held at most.
        gathered: Parameters and gradients that FSDP2 has put together for a while.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    gathered: int = 0

    @property
    def total(self) -> int:
        """All together; on top come libraries, data and what the backward pass and the allocator take for a while."""
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations + self.gathered

    def lines(self) -> list[str]:
        """One for each part."""
        return [
            f"memory: weights {_megabytes(self.weights)}",
            f"memory: gradients {_megabytes(self.gradients)}",
            f"memory: AdamW {_megabytes(self.optimizer)}",
            f"memory: copies of the best weights {_megabytes(self.copies)}",
            f"memory: activations of the largest batch {_megabytes(self.activations)}",
            *([f"memory: layers put together {_megabytes(self.gathered)}"] if self.gathered else []),
            f"memory: total {_megabytes(self.total)}, libraries and data not counted",
        ]


def estimate(module: nn.Module, run: Run, activations: int) -> Estimate:
    """What a run takes when all that ever learns does, with activations as `LiveTensors` measured them."""
    learning = _bytes(_learning(module.parameters()))
    return Estimate(
        weights=_bytes([*module.parameters(), *module.buffers()]),
        gradients=learning,
        optimizer=COPIES_OF_ADAMW * learning,
        copies=learning * (run.average_last or run.average_best),
        activations=activations,
    )


def share(module: nn.Module, run: Run, activations: int, num_processes: int) -> Estimate:
    """What one of several processes takes with `run.sharding: fsdp`.

    Put together are at most what lies outside of layers and two layers (one in use, one that comes next), each as
    parameters and as the message that brought them, and the gradients of one of them before they are shared out.
    """
    alone = estimate(module, run, activations)
    layers = [part for part in module.modules() if isinstance(part, GradientCheckpointingLayer)]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    outside = [parameter for parameter in module.parameters() if id(parameter) not in inside]
    sizes = [(_bytes([*layer.parameters()]), _bytes(_learning(layer.parameters()))) for layer in layers] or [(0, 0)]
    whole, gradients = (max(column) for column in zip(*sizes, strict=True))
    return Estimate(
        weights=alone.weights // num_processes,
        gradients=alone.gradients // num_processes,
        optimizer=alone.optimizer // num_processes,
        copies=alone.copies // num_processes,
        activations=activations,
        gathered=_bytes(outside) + _bytes(_learning(outside)) + 4 * whole + gradients,
    )


def fits(module: nn.Module, run: Run, activations: int, gigabytes: float) -> list[str]:
    """Whether a run fits on GPUs of so many gigabytes: one process, or DDP, and FSDP2 over several; a line each."""
    ways = {"one process, or DDP": estimate(module, run, activations)}
    ways |= {f"fsdp over {number}": share(module, run, activations, number) for number in SHARED}
    lines = []
    for way, found in ways.items():
        needed = found.total / 2**30
        verdict = "fits" if needed <= (1.0 - SPARE) * gigabytes else "does not fit"
        lines.append(f"GPU of {gigabytes:g} GB, {way}: {needed:.1f} GB, {verdict}")
    return lines


class LiveTensors(TorchDispatchMode):
    """Inside, counts the bytes of tensors that are made and not yet freed (`live`), and the most so far (`peak`).

    What is there before, such as weights, is not counted; what autograd keeps for the backward pass is. (torch's own
    `MemTracker` is private, `torch.distributed._tools`, and counts weights and gradients too.)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation and notes what it made."""
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._note(tensor, made=False)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._note(tensor, made=True)
        self.peak = max(self.peak, self.live)
        return result

    def _note(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            size = storage.nbytes() if made else 0
            self._known.add(key)
            self.live += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _learning(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum({tensor.data_ptr() or id(tensor): tensor.nbytes for tensor in tensors}.values())


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MB" if num_bytes >= 2**20 else f"{num_bytes / 2**20:.2f} MB"
