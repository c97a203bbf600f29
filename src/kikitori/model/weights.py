"""Checkpoint files as named tensors: mapped from disk, so that memory holds what is used, and written in shards.

Safetensors for everybody; pickled `.bin` files for `kikitori convert` alone, and of those nothing but tensors.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kikitori.errors import ModelError, first_line
from kikitori.model.safety.config import read_json

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
SHARD_BYTES = 2 * 10**9
NUMBERS = (torch.float16, torch.bfloat16, torch.float32)


def find_weights(folder: Path, name: str) -> list[Path]:
    """The file `name` (`SAFETENSORS` or `PICKLE`), or the shards that its index names; empty if there is neither.

    Raises:
        ModelError: The index is damaged, or names a file that is missing or elsewhere.
    """
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return [folder / name] if (folder / name).is_file() else []
    shards = read_json(folder, index.name).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_plain_name(shard) for shard in shards.values()):
        raise ModelError(f"{index.name} does not name files beside it", where=folder, remedy="copy the folder again")
    files = [folder / shard for shard in sorted(set(shards.values()))]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file.name} is missing", where=folder, remedy="copy the folder again")
    return files


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a network's tensors by name, as they are in memory; about a second per GB."""
    return tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def map_safetensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Tensors of safetensors files; their numbers are read from disk when they are used.

    Raises:
        ModelError: A file is damaged.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
        except (OSError, SafetensorError, ValueError) as error:
            raise ModelError(
                f"{file.name} cannot be read ({first_line(error)})", where=file.parent, remedy="copy the folder again"
            ) from None
    return tensors


def map_pickles(files: Sequence[Path], log: Callable[[str], None]) -> dict[str, Tensor]:
    """Tensors of pickled files, as `map_safetensors`; a line for each file goes to `log`.

    Raises:
        ModelError: A file is damaged, or holds anything but named tensors; nothing of it has been run.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        log(f"{file.name} is a pickle; its tensors are read, and nothing in it is run")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            content = None
        except Exception as error:  # noqa: BLE001  (what a damaged file can raise in torch has no end)
            raise ModelError(
                f"{file.name} cannot be read ({first_line(error)})", where=file.parent, remedy="copy the folder again"
            ) from None
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise ModelError(
                f"{file.name} holds more than named tensors, which is not read",
                where=file.parent,
                remedy="take a release with safetensors",
            )
        tensors |= {str(name): value for name, value in content.items()}
    return tensors


def check_numbers(where: object, name: str, tensor: Tensor) -> None:
    """Refuses what is no dense tensor of 16- or 32-bit floating-point numbers; reads none of them.

    Raises:
        ModelError: With the tensor's name.
    """
    if tensor.dtype not in NUMBERS or tensor.layout != torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(f"{name} holds {kind} numbers", where=where, remedy="take weights in float16 or float32")


def check_finite(where: object, name: str, tensor: Tensor) -> None:
    """Refuses infinite values and those that are no numbers.

    Raises:
        ModelError: With the tensor's name.
    """
    if tensor.is_floating_point() and tensor.numel() and not all(map(isfinite, tensor.aminmax())):  # NaN is both
        raise ModelError(
            f"{name} holds values that are not finite",
            where=where,
            remedy="take a checkpoint from before training diverged",
        )


def write_safetensors(
    directory: Path, tensors: Mapping[str, Tensor], where: object, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes `model.safetensors`, or shards of at most so many bytes with an index, one shard at a time.

    A single tensor may be larger. `where` says where tensors come from, for errors.

    Raises:
        ModelError: A tensor holds values that are not finite.
        OSError: The disk refuses.
        SafetensorError: The disk refuses, as the library says it.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = SAFETENSORS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for name in names:
            check_finite(where, name, tensors[name])
        save_file({name: tensors[name].contiguous() for name in names}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / f"{SAFETENSORS}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\\" not in name
