"""A module's tensors by name: what checkpoints hold and what averages are made of.

Checkpoints hold what training changes. The frozen rest comes from the recipe again, and digests say whether it is the
same: a checkpoint of a large LLM with LoRA has the size of the adapters.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kikitori.errors import TrainingError
from kikitori.train.parallel.shards import fitted, local

Weights = dict[str, Tensor]


def weights(module: nn.Module) -> Weights:
    """All tensors of a module, shared ones once."""
    seen: set[int] = set()
    result = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        place = tensor.data_ptr() or id(tensor)  # what is empty, or in pieces (FSDP2), lies nowhere
        if place not in seen:
            seen.add(place)
            result[name] = tensor.detach()
    return result


def learnt(module: nn.Module, names: Container[str]) -> Weights:
    """Those of `weights` that training changes: buffers, and the parameters that `names` holds."""
    parameters = {name for name, _ in module.named_parameters()}
    return {name: tensor for name, tensor in weights(module).items() if name in names or name not in parameters}


def frozen_digests(module: nn.Module, names: Container[str], component: Callable[[str], str]) -> dict[str, str]:
    """SHA-256 of the parameters that `names` does not hold, for each component such as `llm`."""
    found: dict[str, Any] = {}
    for name, parameter in module.named_parameters():
        if name not in names:
            sha = found.setdefault(component(name), hashlib.sha256())
            sha.update(name.encode())
            sha.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {part: sha.hexdigest() for part, sha in found.items()}


def check_frozen(then: Mapping[str, str], now: Mapping[str, str], recipe: Mapping[str, Any], *, where: Path) -> None:
    """Checks by digests that what a checkpoint does not hold is what it was; the recipe says where weights came from.

    Raises:
        TrainingError: Weights have changed that the run starts from.
    """
    for part in sorted(then.keys() | now.keys()):
        if then.get(part) == now.get(part):
            continue
        init = (recipe.get(part) or {}).get("init")
        if init is None:
            what, remedy = (
                f"the frozen weights of the {part} are not those of the run",
                "resume with its recipe and seed",
            )
        else:
            what = f"the frozen weights of the {part} are not those that {part}.init gave ({init})"
            remedy = "put that model back, with the recipe's policies"
        raise TrainingError(what, where=where, remedy=remedy)


def statistics(module: nn.Module) -> Weights:
    """What layers gather in forward passes, such as batch-norm statistics: floating-point buffers that are saved."""
    # Not by way of state_dict: that takes a sharded module's parameters apart, in the middle of a pass.
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, part in module.named_modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set and buffer.is_floating_point()
    }


def load_weights(expected: Weights, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Puts `learnt` weights back into those that are expected.

    Raises:
        TrainingError: Names or shapes do not match.
    """
    wrong = sorted(set(expected) ^ set(tensors)) or [n for n in expected if expected[n].shape != tensors[n].shape]
    if wrong:
        raise TrainingError(
            f"the weights do not fit the model at {wrong[0]}", where=where, remedy="use the same recipe"
        )
    copy_into(expected, tensors)


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Overwrites the tensors of `targets` that `tensors` names."""
    for name, tensor in tensors.items():
        targets[name].copy_(fitted(tensor, targets[name]))


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor that holds NaN or infinity, or None."""
    return next((n for n, t in tensors.items() if t.is_floating_point() and not bool(local(t).isfinite().all())), None)


def check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Refuses weights that are not finite after so many steps.

    Raises:
        TrainingError: One holds NaN or infinity.
    """
    broken = first_not_finite(tensors)
    if broken is not None:
        remedy = "lower optim.lr; the last checkpoint is sound, see --resume"
        raise TrainingError(f"{broken} is no longer finite", where=f"step {step}", remedy=remedy)


def mean(copies: Iterable[Weights]) -> Weights:
    """The mean of several sets of weights; what is no floating-point number is taken from the last."""
    average: Weights = {}
    for count, tensors in enumerate(copies, start=1):
        for name, tensor in tensors.items():
            if name not in average or not tensor.is_floating_point():
                average[name] = tensor.detach().clone()
            else:
                average[name] += (tensor - average[name]) / count
    return average
