"""Work that several processes share: the options of commands, and the recognisers that they get."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import Device
from kikitori.errors import ConfigError

if TYPE_CHECKING:
    from kikitori.engine.pool import Pool
    from kikitori.recognizer import Recognizer

PATIENCE = timedelta(days=7)  # with processes that have more to do


class EngineName(StrEnum):
    """Where batches are recognised."""

    local = "local"
    ray = "ray"


EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="This process, or Ray: the cluster of RAY_ADDRESS, or one of this machine."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Of --engine ray; by default one for each GPU, or each core.")
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="Of this process, such as 1/4; under torchrun that of its rank.")
]


@contextmanager
def recognizers(
    make: "Callable[[Device], Recognizer]",
    engine: EngineName,
    workers: int | None,
    device: Device,
    prepare: "Callable[[Recognizer], None]" = lambda _: None,
) -> "Iterator[tuple[Recognizer, Pool | None]]":
    """The recogniser of this process and, with Ray, a pool of others like it; it then is on the CPU, for what it says.

    Those that are to recognise are prepared once.

    Raises:
        KikitoriError: It cannot be loaded, or the options or the cluster do not fit.
    """
    if engine is EngineName.local:
        if workers is not None:
            raise ConfigError("this process works alone", where="--workers", remedy="add --engine ray")
        with together():
            recognizer = make(device)
            prepare(recognizer)
            yield recognizer, None
        return
    from kikitori.engine.ray import ray_pool
    from kikitori.io.extras import require
    from kikitori.model.weights import weights_digest

    require("ray", "--engine ray needs")
    recognizer = make(Device.cpu)
    digest = weights_digest(recognizer.loaded.model)

    def prepared() -> "Recognizer":
        made = make(device)
        prepare(made)
        return made

    with ray_pool(prepared, digest, workers=workers, gpu=device is not Device.cpu) as pool:
        yield recognizer, pool


@contextmanager
def together() -> Iterator[None]:
    """Under torchrun, ends when all processes do: it ends the others as soon as one has a recording that failed."""
    try:
        yield
    finally:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch.distributed as dist

            dist.init_process_group("gloo", timeout=PATIENCE)
            dist.barrier()
            dist.destroy_process_group()
