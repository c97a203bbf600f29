"""A `Pool` on a cluster of Ray: one actor per device, on this machine or on those of RAY_ADDRESS.

Ray starts an actor anew when its process dies, and gives it the same batch again, once; a batch that ends its process a
second time is lost (`each` then does its items one by one). Actors of our own rather than Ray Data, which tries such a
batch for ever. Audio, models and the working directory have the same paths on every machine.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from kikitori.engine.pool import Found, Item, LostError, Work
from kikitori.errors import ConfigError, KikitoriError, first_line
from kikitori.io.extras import require
from kikitori.model.weights import weights_digest
from kikitori.recognizer import Recognizer

Make = Callable[[], Recognizer]
"""Loads the recogniser; sent as a pickle."""
TRIED_AGAIN = 1
"""How often a batch is given to a process after one that died over it."""

KNOCK_S = 10.0
"""How long a cluster may take to answer."""


@contextmanager
def ray_pool(make: Make, digest: str, *, workers: int | None, gpu: bool) -> "Iterator[RayPool]":
    """The cluster that RAY_ADDRESS names, or one of this machine, which ends with the context.

    Args:
        make: Loads the recogniser in a worker.
        digest: SHA-256 of the weights that every worker has to have.
        workers: How many; None takes one for each GPU, or for each core where there is none or none is wanted.
        gpu: Whether a worker has a GPU to itself, where there are any.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached or has too little for the workers.
    """
    require("ray", "--engine ray needs")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it writes of dead workers between the transcripts
    import ray

    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    elsewhere = os.environ.get("RAY_ADDRESS")
    try:
        if elsewhere:
            _knock(elsewhere)
            ray.init(address=elsewhere, **shared)
        else:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **shared)
    except (OSError, RuntimeError, ValueError) as error:  # connection errors and time-outs among them
        remedy = "check RAY_ADDRESS and `ray status`" if elsewhere else "see the logs of Ray"
        raise ConfigError(f"Ray does not start ({first_line(error)})", where=elsewhere, remedy=remedy) from None
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if gpu else 0
        most = gpus or int(there.get("CPU", 0))
        size = most if workers is None else workers
        if not 0 < size <= most:
            what = f"{size} workers on a cluster with room for {most}"
            raise ConfigError(what, where="--workers", remedy="use fewer workers")
        yield RayPool(make, digest, size, gpus=int(gpus > 0))
    finally:
        ray.shutdown()


class RayPool:
    """A `Pool` of actors, made by `ray_pool`.

    Args:
        make: Loads the recogniser in a worker.
        digest: SHA-256 of its weights.
        size: Number of actors, which start with the first batches.
        gpus: GPUs of each, 0 or 1.
    """

    def __init__(self, make: Make, digest: str, size: int, *, gpus: int) -> None:
        import ray

        self._size, self._gpus = size, gpus
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=TRIED_AGAIN)(_Worker)
        self._settings = make, digest, os.getcwd()  # noqa: PTH109
        self._workers: list[Any] = []

    @property
    def size(self) -> int:
        """As of `Pool`."""
        return self._size

    @property
    def device(self) -> str:
        """As of `Pool`."""
        return "cuda" if self._gpus else "cpu"

    def run(
        self, work: Work[Item, Found], batches: Sequence[Sequence[Item]]
    ) -> Iterator[tuple[int, Sequence[Found] | LostError]]:
        """As of `Pool`."""
        import ray

        while len(self._workers) < min(self._size, len(batches)):
            self._workers.append(self._kind.remote(*self._settings))
        waiting = iter(enumerate(batches))
        idle = [*self._workers]
        going: dict[Any, tuple[int, Any]] = {}
        while True:
            for number, batch in islice(waiting, len(idle)):
                worker = idle.pop()
                going[worker.do.remote(work, batch)] = number, worker
            if not going:
                return
            done, _ = ray.wait([*going])
            number, worker = going.pop(done[0])
            idle.append(worker)
            yield number, _found(done[0])


def _knock(address: str) -> None:
    """Finds out whether anybody listens at an address such as `head:6379`, for which Ray would wait for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


class _Worker:
    """A recogniser in a process of Ray. What goes wrong is a result, since Ray takes errors for those of a machine."""

    def __init__(self, make: Make, digest: str, folder: str) -> None:
        self._error: KikitoriError | None = None
        try:
            os.chdir(folder)
            self._recognizer = make()
            if weights_digest(self._recognizer.loaded.model) != digest:
                raise ConfigError("a worker has other weights", where=self._recognizer.name, remedy="copy them again")
        except KikitoriError as error:
            self._error = error
        except OSError as error:
            self._error = ConfigError(f"a worker cannot use it ({error.strerror})", where=folder)

    def do(self, work: Work[Any, Any], batch: Sequence[Any]) -> Any:
        """The results of a batch, or what went wrong."""
        if self._error is not None:
            return self._error
        try:
            return work(self._recognizer, batch)
        except KikitoriError as error:
            return error
        except Exception as error:  # noqa: BLE001
            return LostError(f"a worker failed over it ({type(error).__name__}: {first_line(error)})")


def _found(result: Any) -> Any:
    """What a worker has found, or that it died.

    Raises:
        KikitoriError: It has no recogniser, or the search cannot go on.
    """
    import ray

    try:
        found = ray.get(result)
    except ray.exceptions.RayActorError as error:
        if error.actor_init_failed:
            what = f"a worker cannot start ({first_line(error)})"
            raise ConfigError(what, where="--engine ray", remedy="install the same packages on every machine") from None
        return LostError("a worker died over it twice", remedy="see the logs of Ray")
    if isinstance(found, KikitoriError) and not isinstance(found, LostError):
        raise found
    return found
