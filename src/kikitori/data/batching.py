"""Which utterances share a batch: duration buckets, shuffled anew each epoch, restorable to the batch.

The batches of an epoch are a pure function of (durations, settings, seed, epoch), so that "batch 17 of epoch 3" is all
that a resumed run has to know. Lhotse's bucketing sampler does the work.
"""

import warnings
from collections.abc import Sequence

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
    """Indices of the utterances of each batch of one epoch; every utterance occurs once.

    Args:
        durations: Seconds (or any other cost, such as labels) per utterance.
        batch_seconds: Upper bound of a batch's padded total: its longest utterance times its size.
        max_batch_size: Upper bound of utterances in a batch.
        num_buckets: Number of buckets of similar length.
        seed: Seed of the run.
        epoch: Number of the epoch; another epoch gives another order.

    Raises:
        DataError: There is nothing to batch.
    """
    if not durations:
        raise DataError("no utterance is left to train on", remedy="see the filter report above")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lhotse's imports warn about optional packages
        from lhotse import CutSet, MonoCut
        from lhotse.dataset import DynamicBucketingSampler

        cuts = CutSet.from_cuts(
            MonoCut(id=str(index), start=0, duration=max(seconds, 0.01), channel=0)
            for index, seconds in enumerate(durations)
        )
        sampler = DynamicBucketingSampler(
            cuts,
            max_duration=max(batch_seconds, *durations) if len(durations) > 1 else max(batch_seconds, durations[0]),
            max_cuts=max_batch_size,
            num_buckets=min(num_buckets, max(1, len(durations) // 2)),
            shuffle=True,
            drop_last=False,
            seed=seed,
            rank=0,
            world_size=1,
            buffer_size=max(len(durations), 2),
        )
        sampler.set_epoch(epoch)
        return [[int(cut.id) for cut in batch] for batch in sampler]
