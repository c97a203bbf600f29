"""Several processes over gloo on this machine, as torchrun would start them."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from tests.processes import start


def run_together(count: int, target: Callable[..., None], *arguments: Any, timeout: float = 200.0) -> list[int | None]:
    """Runs `target(*arguments)` in so many processes; gives their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start(_run, rank, count, port, target, arguments) for rank in range(count)]
    for each in workers:
        each.join(timeout)
    return [each.exitcode for each in workers]


def _run(rank: int, count: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(count), RANK=str(rank))
    torch.set_num_threads(1)
    target(*arguments)
