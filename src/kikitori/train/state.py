"""A module's tensors by name: what checkpoints hold and what averages are made of."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kikitori.errors import TrainingError

Weights = dict[str, Tensor]


def weights(module: nn.Module) -> Weights:
    """All tensors of a module, shared ones once."""
    seen: set[int] = set()
    result = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            result[name] = tensor
    return result


def learnt(module: nn.Module) -> Weights:
    """Those of `weights` that training changes: trainable parameters and buffers."""
    fixed = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in weights(module).items() if name not in fixed}


def statistics(module: nn.Module) -> Weights:
    """What layers gather in forward passes, such as batch-norm statistics: floating-point buffers that are saved."""
    saved = module.state_dict().keys()
    return {n: buffer for n, buffer in module.named_buffers() if n in saved and buffer.is_floating_point()}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Puts `weights` back.

    Raises:
        TrainingError: Names or shapes do not match.
    """
    expected = weights(module)
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
        targets[name].copy_(tensor)


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor that holds NaN or infinity, or None."""
    return next((n for n, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())), None)


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
