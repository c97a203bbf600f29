"""Reading ahead."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(sources: Sequence[S], read: Callable[[S], T]) -> Iterator[T]:
    """What `read` makes of each source, read while the one before is used; an error comes in its place."""
    with ThreadPoolExecutor(1) as reader:
        coming: Future[T] | None = None
        for index, source in enumerate(sources):
            current = coming or reader.submit(read, source)
            if index + 1 < len(sources):
                coming = reader.submit(read, sources[index + 1])
            yield current.result()
