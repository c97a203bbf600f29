"""Tensors of an adapter: safetensors alone, each of which must fit the base."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.safety.weights import PICKLES, check_safetensors
from kikitori.model.weights import check_finite


def fitting_tensors(folder: Path, name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, each of which must fit one of the model's."""
    file = tensor_file(folder, name)
    for key, shape in shapes_of(file).items():
        if key not in own or tuple(own[key].shape) != shape:
            raise ModelError(f"{name} does not fit the base at {key}", where=folder, remedy="copy the folder again")
    with safe_open(file, "pt") as tensors:
        found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    for key, tensor in found.items():
        if tensor.dtype not in (own[key].dtype, torch.float16):
            raise ModelError(f"{name}: {key} is not {own[key].dtype}", where=folder, remedy="train the adapter again")
        check_finite(folder, key, tensor)
    return found


def tensor_file(folder: Path, name: str) -> Path:
    """A file of an adapter.

    Raises:
        ModelError: It is missing, or there is a pickle in its place.
    """
    if (folder / name).is_file():
        return folder / name
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            where=folder,
            remedy="save the adapter as safetensors",
        )
    raise ModelError(f"{name} is missing", where=folder, remedy="copy the folder again")


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors by name.

    Raises:
        ModelError: It is damaged.
    """
    check_safetensors(file)
    with safe_open(file, "pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118  (no dict)


@torch.no_grad()
def copy_tensors(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Fills a model's own tensors with those of the same names."""
    for name, tensor in found.items():
        own[name].copy_(tensor)
