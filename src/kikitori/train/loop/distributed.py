"""Data-parallel training with several processes, started by `torchrun`; with one process nothing here does anything.

    torchrun --nproc-per-node 2 -m kikitori train RECIPE.yaml -o RUN_DIR

Each process computes its share of the batches of a step; gradients are averaged before the update.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(hours=12)  # the others wait while the first process decodes dev


def start(device: torch.device) -> tuple[int, int]:
    """Joins the processes that torchrun started; gives this process's rank and their number."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return (dist.get_rank(), size) if size > 1 else (0, 1)


def total(*counts: int) -> tuple[int, ...]:
    """The sums of whole numbers over all processes."""
    if not dist.is_initialized():
        return counts
    # Where the backend's messages live: NCCL knows no others.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(counts, dtype=torch.int64, device=device)
    dist.all_reduce(sums)
    return tuple(sums.tolist())


def average_gradients(parameters: Iterable[nn.Parameter], batches: int) -> None:
    """Averages gradients, summed over this process's batches, over all batches of all processes."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if dist.is_initialized():
        # One flat message: many small ones would cost more than the sums.
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        _scatter(flat, gradients)
    if batches > 1:
        for parameter in learning:
            if parameter.grad is not None:
                parameter.grad /= batches


def average_tensors(tensors: Sequence[Tensor]) -> None:
    """Averages tensors over all processes in place, such as batch-norm statistics, which no gradient carries."""
    if dist.is_initialized() and tensors:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        _scatter(flat / dist.get_world_size(), tensors)


def gather(value: Any) -> list[Any]:
    """Every process's value, by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait() -> None:
    """Waits until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    start_at = 0
    for tensor in tensors:
        tensor.copy_(flat[start_at : start_at + tensor.numel()].view_as(tensor))
        start_at += tensor.numel()
