"""Reading ahead."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(sources: Iterable[S], read: Callable[[S], T]) -> Iterator[tuple[S, T]]:
    """Each source with what `read` makes of it, read while the one before is used; an error comes in its place."""
    with ThreadPoolExecutor(1) as reader:
        waiting = ((source, reader.submit(read, source)) for source in sources)
        current = next(waiting, None)
        while current is not None:
            source, reading = current
            current = next(waiting, None)
            yield source, reading.result()
