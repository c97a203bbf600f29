"""What training takes of memory, estimated before it begins, and how to take less."""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from kikitori.errors import ConfigError
from kikitori.train.loop.state import copy_into, statistics
from kikitori.train.recipe.optim import Run

COPIES_OF_ADAMW = 2  # its two averages


def checkpoint_activations(module: nn.Module) -> None:
    """Lets encoder and LLM keep the inputs of their layers alone and compute the rest again for the backward pass.

    Gradients and batch-norm statistics stay the same. Only what trains does it: frozen encoders in evaluation mode keep
    nothing anyway.

    Raises:
        ConfigError: The code of an encoder or an LLM does not know how.
    """
    for part in module.modules():
        # Ours hold others; of an LLM with its body inside, the outer one speaks for both.
        if not isinstance(part, PreTrainedModel) or part.config.model_type.startswith("kikitori_"):
            continue
        if not part.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(part).__name__} cannot compute activations again",
                where="run.gradient_checkpointing",
                remedy="leave it out",
            )
        how = {"use_reentrant": False, "context_fn": partial(_contexts, part)}
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it has another name in new releases
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
            if part.main_input_name == "input_ids":
                part.disable_input_require_grads()  # gradients of the embeddings' output, which nobody needs


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation of a layer, and the second one."""
    return nullcontext(), _again(part)


@contextmanager
def _again(part: nn.Module) -> Iterator[None]:
    """Leaves batch-norm statistics as the first computation left them; what there was to warn of was said then."""
    counted = statistics(part)
    counted |= {name: buffer for name, buffer in part.named_buffers() if name.endswith("num_batches_tracked")}
    before = {name: buffer.clone() for name, buffer in counted.items()}
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        copy_into(counted, before)


@dataclass(frozen=True)
class Estimate:
    """Bytes that training takes.

    Attributes:
        copies: Weights worth exporting, kept beside.
        activations: What the forward pass of the largest batch held at most.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        """All together; on top come libraries, data and what the backward pass and the allocator take for a while."""
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations

    def lines(self) -> list[str]:
        """One for each part."""
        return [
            f"memory: weights {_megabytes(self.weights)}",
            f"memory: gradients {_megabytes(self.gradients)}",
            f"memory: AdamW {_megabytes(self.optimizer)}",
            f"memory: copies of the best weights {_megabytes(self.copies)}",
            f"memory: activations of the largest batch {_megabytes(self.activations)}",
            f"memory: total {_megabytes(self.total)}, libraries and data not counted",
        ]


def estimate(module: nn.Module, run: Run, activations: int) -> Estimate:
    """What a run takes when all that ever learns does, with activations as `LiveTensors` measured them."""
    learning = _bytes([parameter for parameter in module.parameters() if parameter.requires_grad])
    return Estimate(
        weights=_bytes([*module.parameters(), *module.buffers()]),
        gradients=learning,
        optimizer=COPIES_OF_ADAMW * learning,
        copies=learning * (run.average_last or run.average_best),
        activations=activations,
    )


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


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MB" if num_bytes >= 2**20 else f"{num_bytes / 2**20:.2f} MB"
