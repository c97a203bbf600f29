"""The processes of a run, started by `torchrun`; with one process nothing here does anything.

    torchrun --nproc-per-node 2 -m kikitori train RECIPE.yaml -o RUN_DIR

Gradients are the business of `strategy.py`. Here is what it does not know: counts, dev scores and batch-norm statistics
that all must agree on, and what is said when a process is lost.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kikitori.data.speech import SpeechLoader, leave_out, left_out
from kikitori.errors import TrainingError
from kikitori.train.loop.provenance import unlike

PATIENCE = timedelta(hours=12)  # the others wait while the first process decodes dev
LOST = re.compile(r"closed by peer|reset by peer|remote worker|Broken pipe|NCCL", re.IGNORECASE)


def start(device: torch.device) -> tuple[int, int]:
    """Joins the processes that torchrun started; gives this process's rank and their number."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # Counts and JSON go over gloo whatever the device: a GPU need not stop for them.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return (dist.get_rank(), size) if size > 1 else (0, 1)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def leave() -> None:
    """Parts from the others; what comes then is for this process alone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check_same(provenance: Mapping[str, Any]) -> None:
    """Checks that all processes train the same recipe on the same data with the same packages.

    Raises:
        TrainingError: One does not; all processes raise it.
    """
    first, *others = gather(provenance)
    for rank, other in enumerate(others, start=1):
        for line in unlike(first, other):
            raise TrainingError(
                f"the processes do not train the same: {line}",
                where=f"process {rank} beside process 0",
                remedy="start all of them with one recipe, one set of files and one environment",
            )


def total(*counts: int) -> tuple[int, ...]:
    """The sums of whole numbers over all processes."""
    if not dist.is_initialized():
        return counts
    sums = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(sums)
    return tuple(sums.tolist())


def average_tensors(tensors: Sequence[Tensor]) -> None:
    """Averages tensors over all processes in place, such as batch-norm statistics, which no gradient carries."""
    if dist.is_initialized() and tensors:
        # One flat message: many small ones would cost more than the sums.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        pieces = (flat / dist.get_world_size()).split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))


def gather(value: Any) -> list[Any]:
    """Every process's value, by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def share_left_out(speech: Sequence[SpeechLoader]) -> list[list[str]]:
    """Lets all processes know what one could not read, and gives it: their decoding and the export depend on it.

    With FSDP2, processes that decode otherwise than others would wait for them.
    """
    leave_out(speech, *gather(left_out(speech)))
    return left_out(speech)


def wait() -> None:
    """Waits until all processes are here."""
    if dist.is_initialized():
        total(0)  # a barrier would go over the GPU


@contextmanager
def together() -> Iterator[None]:
    """Inside, the loss of another process is told in one line.

    Raises:
        TrainingError: Another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not LOST.search(str(error)):
            raise
        raise TrainingError(
            "another process of the run has ended, see what it says; this one ends too",
            where=f"process {dist.get_rank()} of {dist.get_world_size()}",
            remedy="start all of them again with --resume",
        ) from None
