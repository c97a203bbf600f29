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
    """The batches of an epoch: eight bytes an utterance and sixteen a batch, however many there are.

    Args:
        order: All utterances, those of a batch one behind the other.
        starts: Where in the order each batch begins, in the order of the epoch.
        ends: Where each ends.
    """

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.order, self.starts, self.ends = order, starts, ends

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...
    @overload
    def __getitem__(self, place: slice) -> "Batches": ...
    def __getitem__(self, place: int | slice) -> "list[int] | Batches":
        if isinstance(place, slice):
            return Batches(self.order, self.starts[place], self.ends[place])
        found: list[int] = self.order[self.starts[place] : self.ends[place]].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[place] for place in range(len(self)))

    def of(self, chosen: NDArray[np.int64]) -> "Batches":
        """The same batches of things that are numbered otherwise: number i is `chosen[i]`."""
        return Batches(chosen[self.order], self.starts, self.ends)


def epoch_batches(
    durations: ArrayLike,
    *,
    batch_seconds: float,
    max_batch_size: int,
    num_buckets: int,
    seed: int,
    epoch: int,
    shards: ArrayLike = (),
    shuffle_rows: int = 1,
) -> Batches:
    """Indices of the utterances of each batch of one epoch; every utterance occurs once, in an order of that epoch.

    Durations are seconds, or any other cost, such as labels. A batch's longest utterance times its size stays within
    `batch_seconds`, but for single utterances that are longer. Each of at most `num_buckets` buckets of similar length
    holds about as many seconds.

    Utterances that lie in shards are batched by windows, so that few shards are read at a time: the shards are
    shuffled, and as many follow each other as hold `shuffle_rows`.

    Args:
        durations: Of each utterance, (n,).
        batch_seconds: Padded seconds of a batch.
        max_batch_size: Utterances of a batch.
        num_buckets: Buckets of each window.
        seed: The run's.
        epoch: From 0.
        shards: A number for the shard of each utterance, (n,), 0 for those that lie in none, which come in any window;
            empty for no shards. Which numbers these are does not matter.
        shuffle_rows: Utterances of shards in a window, at least.

    Raises:
        DataError: There is nothing to batch.
    """
    seconds = np.maximum(np.asarray(durations, dtype=np.float64), 1e-3)
    if not seconds.size:
        raise DataError("no utterance is left to train on", remedy="see the filter report above")
    generator = np.random.default_rng([seed, epoch])
    windows = _windows(np.asarray(shards, dtype=np.int64), len(seconds), shuffle_rows, generator)
    made = [
        _batched(seconds[window], batch_seconds, max_batch_size, num_buckets, generator).of(window)
        for window in windows
    ]
    return made[0] if len(made) == 1 else _in_a_row(made)


def _windows(
    shards: NDArray[np.int64], count: int, shuffle_rows: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Numbers of the utterances of each window, in the order of the epoch."""
    if not shards.any():
        return [np.arange(count)]
    names, first, shard_of, sizes = np.unique(shards, return_index=True, return_inverse=True, return_counts=True)
    by_row = np.argsort(first)  # not by their numbers, which are another path's where the data lie elsewhere
    order = generator.permutation(by_row[names[by_row] != 0])
    window_of_shard = np.zeros(len(names), np.int64)
    window_of_shard[order] = (np.cumsum(sizes[order]) - sizes[order]) // shuffle_rows
    _, window_of_shard[order] = np.unique(window_of_shard[order], return_inverse=True)  # large shards jump over some
    windows = window_of_shard[shard_of]
    free = shards == 0
    windows[free] = generator.integers(windows.max() + 1, size=np.count_nonzero(free))
    by_window = np.argsort(windows, kind="stable")
    return np.split(by_window, np.flatnonzero(np.diff(windows[by_window])) + 1)


def _batched(
    seconds: NDArray[np.float64],
    batch_seconds: float,
    max_batch_size: int,
    num_buckets: int,
    generator: np.random.Generator,
) -> Batches:
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


def _in_a_row(parts: Sequence[Batches]) -> Batches:
    begun = np.cumsum([0, *(len(part.order) for part in parts[:-1])])
    return Batches(
        np.concatenate([part.order for part in parts]),
        np.concatenate([part.starts + begin for part, begin in zip(parts, begun, strict=True)]),
        np.concatenate([part.ends + begin for part, begin in zip(parts, begun, strict=True)]),
    )
