"""Which utterances share a batch: duration buckets, shuffled anew each epoch, restorable to the batch.

The batches of an epoch are a pure function of (durations, settings, seed, epoch), so that "batch 17 of epoch 3" is all
that a resumed run has to know.
"""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kikitori.errors import DataError


class Batches(Sequence[list[int]]):
    """The batches of an epoch: twelve bytes an utterance, however many there are.

    Args:
        order: All utterances, those of a batch one behind the other.
        starts: Where in the order each batch begins, in the order of the epoch.
        ends: Where each ends.
    """

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._order, self._starts, self._ends = order, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...
    @overload
    def __getitem__(self, place: slice) -> "Batches": ...
    def __getitem__(self, place: int | slice) -> "list[int] | Batches":
        if isinstance(place, slice):
            return Batches(self._order, self._starts[place], self._ends[place])
        found: list[int] = self._order[self._starts[place] : self._ends[place]].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[place] for place in range(len(self)))

    def of(self, chosen: NDArray[np.int64]) -> "Batches":
        """The same batches of things that are numbered otherwise: number i is `chosen[i]`."""
        return Batches(chosen[self._order], self._starts, self._ends)


def epoch_batches(
    durations: ArrayLike,
    *,
    batch_seconds: float,
    max_batch_size: int,
    num_buckets: int,
    seed: int,
    epoch: int,
) -> Batches:
    """Indices of the utterances of each batch of one epoch; every utterance occurs once, in an order of that epoch.

    Durations are seconds, or any other cost, such as labels. A batch's longest utterance times its size stays within
    `batch_seconds`, but for single utterances that are longer. Each of at most `num_buckets` buckets of similar length
    holds about as many seconds.

    Raises:
        DataError: There is nothing to batch.
    """
    seconds = np.maximum(np.asarray(durations, dtype=np.float64), 1e-3)
    if not seconds.size:
        raise DataError("no utterance is left to train on", remedy="see the filter report above")
    generator = np.random.default_rng([seed, epoch])
    by_length = np.argsort(seconds, kind="stable")
    total = np.cumsum(seconds[by_length])
    # Little data gets fewer buckets, because a bucket's last batch is seldom full.
    num_buckets = max(1, min(num_buckets, int(total[-1] / (2.0 * batch_seconds))))
    borders = np.searchsorted(total, total[-1] * np.arange(1, num_buckets) / num_buckets)
    order, starts, begun = by_length.copy(), list[NDArray[np.int64]](), 0
    for bucket in np.split(by_length, borders):
        if bucket.size:
            # What fits beside the bucket's longest utterance fits beside all of them.
            size = max(1, min(max_batch_size, int(batch_seconds / seconds[bucket[-1]])))
            order[begun : begun + bucket.size] = generator.permutation(bucket)
            starts.append(np.arange(begun, begun + bucket.size, size))
            begun += bucket.size
    first = np.concatenate(starts)
    ends = np.append(first[1:], begun)
    shuffled = generator.permutation(len(first))
    return Batches(order, first[shuffled], ends[shuffled])
