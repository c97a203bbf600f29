"""Tensors of which every process holds a piece: to disk and back, by `torch.distributed.checkpoint`.

Each process writes its pieces as a safetensors file, which says where in the whole they belong; nothing is pickled. Any
number of processes, one included, can read them.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from kikitori.train.parallel import processes

Weights = dict[str, Tensor]
Empty = Callable[[str, torch.Size, torch.dtype], Tensor]
"""Makes room for a tensor by its name, its shape and its type."""


def whole(_: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Room for all of a tensor."""
    return torch.empty(size, dtype=dtype)


def pieces_like(parameters: Mapping[str, Tensor]) -> Empty:
    """Room for this process's piece of what belongs to a parameter, such as `NAME` or `NAME|exp_avg`."""

    def empty(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        parameter = parameters.get(name.partition("|")[0])
        if parameter is None or parameter.shape != size:
            return torch.empty(size, dtype=dtype)
        return torch.empty_like(parameter, dtype=dtype, requires_grad=False)

    return empty


def write_shards(folder: Path, groups: Mapping[str, Weights]) -> dict[str, str]:
    """Every process writes its pieces of each group to `folder/GROUP`, synced to disk; gives the SHA-256 of all files.

    Every process calls it; the folder exists when the first one does.

    Raises:
        OSError: The disk of a process refuses.
    """
    digests: dict[str, str] = {}
    processes.wait()
    for name, tensors in groups.items():
        try:
            save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder / name), save_distributed=True))
        except CheckpointException as error:
            raise OSError(str(next(iter(error.failures.values()))[0])) from None
    own = f"shard-{processes.rank() + 1:05d}-"
    for file in sorted(folder.glob(f"*/{own}*.safetensors")):
        with file.open("rb") as data:
            digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(data, "sha256").hexdigest()
            os.fsync(data.fileno())
    return {name: digest for found in processes.gather(digests) for name, digest in found.items()}


def read_shards(folder: Path, empty: Empty) -> Weights:
    """A group that `write_shards` wrote, in the room that `empty` makes; each process reads for itself."""
    reader = HuggingFaceStorageReader(str(folder))
    known = reader.read_metadata().state_dict_metadata
    tensors = {
        name: empty(name, about.size, about.properties.dtype)
        for name, about in known.items()
        if isinstance(about, TensorStorageMetadata)
    }
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it reads alone
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def fitted(tensor: Tensor, target: Tensor) -> Tensor:
    """A tensor as the target is held: whole, or this process's piece of it."""
    if isinstance(target, DTensor) and not isinstance(tensor, DTensor):
        device = tensor.to(target.device)
        return distribute_tensor(device, target.device_mesh, target.placements, src_data_rank=None)
    return tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
