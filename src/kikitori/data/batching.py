"""Which utterances share a batch: duration buckets, shuffled anew each epoch, restorable to the batch.

The batches of an epoch are a pure function of (durations, settings, seed, epoch), so that "batch 17 of epoch 3" is all
that a resumed run has to know.
"""

from collections.abc import Sequence

import numpy as np

from kikitori.errors import DataError


def epoch_batches(
    durations: Sequence[float],
    *,
    batch_seconds: float,
    max_batch_size: int,
    num_buckets: int,
    seed: int,
    epoch: int,
) -> list[list[int]]:
    """Indices of the utterances of each batch of one epoch; every utterance occurs once, in an order of that epoch.

    Durations are seconds, or any other cost, such as labels. A batch's longest utterance times its size stays within
    `batch_seconds`, but for single utterances that are longer. Each of at most `num_buckets` buckets of similar length
    holds about as many seconds.

    Raises:
        DataError: There is nothing to batch.
    """
    if not durations:
        raise DataError("no utterance is left to train on", remedy="see the filter report above")
    generator = np.random.default_rng([seed, epoch])
    seconds = np.maximum(np.asarray(durations, dtype=np.float64), 1e-3)
    by_length = np.argsort(seconds, kind="stable")
    total = np.cumsum(seconds[by_length])
    # Little data gets fewer buckets, because a bucket's last batch is seldom full.
    num_buckets = max(1, min(num_buckets, int(total[-1] / (2.0 * batch_seconds))))
    starts = np.searchsorted(total, total[-1] * np.arange(1, num_buckets) / num_buckets)
    batches: list[list[int]] = []
    for bucket in np.split(by_length, starts):
        if bucket.size:
            # What fits beside the bucket's longest utterance fits beside all of them.
            size = max(1, min(max_batch_size, int(batch_seconds / seconds[bucket[-1]])))
            shuffled = generator.permutation(bucket).tolist()
            batches += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return [batches[index] for index in generator.permutation(len(batches))]
