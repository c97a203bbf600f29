"""The seam between work over many recordings and recognisers that share it: a `Pool` of processes, each with its own.

Batches go to whichever recogniser is free and come back in any order. `each` forms the batches and makes good what a
process took with it when it died; `in_order` puts results back into the order of what was given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from kikitori.errors import KikitoriError
from kikitori.recognizer import Recognizer

MOST_SECONDS = 300.0
"""Audio of a batch: so much is done again when a process dies."""
BATCHES_EACH = 8
"""Batches that each process gets at least, so that all of them end at about the same time."""

Item = TypeVar("Item")
Found = TypeVar("Found")
Work = Callable[[Recognizer, Sequence[Item]], Sequence[Found]]
"""What a process does with a batch: a result for each item. Both are sent as pickles."""


class LostError(KikitoriError):
    """A process died over a batch, each time that it was tried, or failed in a way that no recording should."""

    code = "lost"


class Pool(Protocol):
    """Recognisers in processes of their own."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def device(self) -> str:
        """Where they compute, as torch names it."""
        ...

    def run(
        self, work: Work[Item, Found], batches: Sequence[Sequence[Item]]
    ) -> Iterator[tuple[int, Sequence[Found] | LostError]]:
        """Results of each batch as soon as they are known, with the number of the batch, each exactly once.

        Raises:
            KikitoriError: No recogniser can be loaded, or there are no processes.
        """
        ...


def each(
    pool: Pool, work: Work[Item, Found], items: Sequence[Item], seconds: Sequence[float]
) -> Iterator[tuple[int, Found | LostError]]:
    """The result of each item with its number, exactly once, in any order.

    Items of a batch that was lost are done again one by one, so that the one which ends a process does so alone.

    Args:
        pool: Who does it.
        work: What is done.
        items: With what.
        seconds: Audio of each item.

    Raises:
        KikitoriError: As `Pool.run`.
    """
    alone: list[int] = []
    batches = batches_by_seconds(seconds, min(MOST_SECONDS, sum(seconds) / (BATCHES_EACH * pool.size)))
    for batch, found in _run(pool, work, items, batches):
        if isinstance(found, LostError) and len(batch) > 1:
            alone += batch
        else:
            yield from _numbered(batch, found)
    for batch, found in _run(pool, work, items, [[number] for number in alone]) if alone else ():
        yield from _numbered(batch, found)


def batches_by_seconds(seconds: Sequence[float], most: float) -> list[list[int]]:
    """Numbers of items in batches of similar length, the longest first; each has at most so much audio, or one item."""
    batches: list[list[int]] = []
    room = 0.0
    for number in sorted(range(len(seconds)), key=lambda number: -seconds[number]):
        if not batches or seconds[number] > room:
            batches.append([])
            room = most
        batches[-1].append(number)
        room -= seconds[number]
    return batches


def in_order(results: Iterable[tuple[int, Found]]) -> Iterator[Found]:
    """Numbered results in the order of their numbers, from 0 on, each as soon as those before it are there."""
    waiting: dict[int, Found] = {}
    following = 0
    for number, result in results:
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _run(
    pool: Pool, work: Work[Item, Found], items: Sequence[Item], batches: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], Sequence[Found] | LostError]]:
    for place, found in pool.run(work, [[items[number] for number in batch] for batch in batches]):
        yield batches[place], found


def _numbered(batch: Sequence[int], found: Sequence[Found] | LostError) -> Iterator[tuple[int, Found | LostError]]:
    if isinstance(found, LostError):
        yield from ((number, found) for number in batch)
    else:
        yield from zip(batch, found, strict=True)
