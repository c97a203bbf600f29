"""Where a run's time goes: waiting for data, forward, backward, update; and how much of it the CPU was at work.

On a GPU the parts end when the host is done with them: what it still owes is waited for where a number is asked for,
most of it in `forward`, which gives the loss.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from torch.autograd.profiler import record_function

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds by part since the last question."""

    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    host_since: float = field(default_factory=time.thread_time)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside, and names it for a profile."""
        started = time.monotonic()
        try:
            with record_function(name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def waiting(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """Counts the time until each value comes."""
        coming = iter(values)
        while True:
            with self.part(name):
                try:
                    value = next(coming)
                except StopIteration:
                    return
            yield value

    def shares(self) -> dict[str, float]:
        """Shares of the time since the last question; `host` is that of this thread's CPU time."""
        now, host = time.monotonic(), time.thread_time()
        elapsed = max(now - self.since, 1e-9)
        found = {**self.seconds, "host": host - self.host_since}
        self.seconds, self.since, self.host_since = {}, now, host
        return {name: round(seconds / elapsed, 4) for name, seconds in found.items()}
