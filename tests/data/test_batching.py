from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.data.batching import epoch_batches
from kikitori.errors import DataError


def batches(durations, *, batch_seconds=20.0, max_batch_size=8, num_buckets=4, seed=1, epoch=0):
    return [
        *epoch_batches(
            durations,
            batch_seconds=batch_seconds,
            max_batch_size=max_batch_size,
            num_buckets=num_buckets,
            seed=seed,
            epoch=epoch,
        )
    ]


def batches_as_before(seconds, batch_seconds, max_batch_size, num_buckets, seed, epoch):
    """The plain form, in lists."""
    generator = np.random.default_rng([seed, epoch])
    seconds = np.maximum(seconds, 1e-3)
    by_length = np.argsort(seconds, kind="stable")
    total = np.cumsum(seconds[by_length])
    num_buckets = max(1, min(num_buckets, int(total[-1] / (2.0 * batch_seconds))))
    starts = np.searchsorted(total, total[-1] * np.arange(1, num_buckets) / num_buckets)
    batches = []
    for bucket in np.split(by_length, starts):
        if bucket.size:
            size = max(1, min(max_batch_size, int(batch_seconds / seconds[bucket[-1]])))
            shuffled = generator.permutation(bucket).tolist()
            batches += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def many(count=400, seed=0):
    return np.random.default_rng(seed).uniform(0.3, 16.0, count).tolist()


@settings(max_examples=60, deadline=None)
@given(
    durations=st.lists(st.one_of(st.floats(0, 40), st.just(3.0)), min_size=1, max_size=80),
    batch_seconds=st.floats(0.5, 200),
    max_batch_size=st.integers(1, 12),
    num_buckets=st.integers(1, 20),
    epoch=st.integers(0, 3),
)
def test_every_utterance_once_within_bounds(durations, batch_seconds, max_batch_size, num_buckets, epoch):
    made = batches(
        durations, batch_seconds=batch_seconds, max_batch_size=max_batch_size, num_buckets=num_buckets, epoch=epoch
    )
    assert sorted(index for batch in made for index in batch) == list(range(len(durations)))
    for batch in made:
        assert all(type(index) is int for index in batch)
        assert 1 <= len(batch) <= max_batch_size
        padded = max(durations[index] for index in batch) * len(batch)
        assert padded <= batch_seconds * (1 + 1e-9) or len(batch) == 1


@pytest.mark.parametrize(("count", "num_buckets"), [(1, 4), (7, 1), (400, 12)])
def test_batches_are_those_of_the_plain_form(count, num_buckets):
    """So that runs of earlier releases resume exactly."""
    for epoch in range(3):
        expected = batches_as_before(many(count), 20.0, 8, num_buckets, 1, epoch)
        found = batches(many(count), num_buckets=num_buckets, epoch=epoch)
        assert found == expected


@pytest.mark.parametrize(("num_shards", "shuffle_rows", "free"), [(1, 5, 0), (9, 100, 0), (9, 1, 7), (30, 10_000, 3)])
def test_shards_are_read_by_windows(num_shards, shuffle_rows, free):
    draws = np.random.default_rng(3)
    shards = np.repeat(draws.permutation(num_shards) + 5, draws.integers(1, 60, num_shards))
    shards = draws.permutation(np.append(shards, np.zeros(free, int)))
    settings = {"batch_seconds": 20.0, "max_batch_size": 8, "num_buckets": 4, "seed": 1}
    settings |= {"shards": shards, "shuffle_rows": shuffle_rows}
    durations = many(len(shards))
    orders = []
    for epoch in range(2):
        made = [*epoch_batches(durations, epoch=epoch, **settings)]
        assert made == [*epoch_batches(durations, epoch=epoch, **settings)]
        assert sorted(chain.from_iterable(made)) == list(range(len(shards)))
        for batch in made:
            assert max(durations[i] for i in batch) * len(batch) <= 20.0 or len(batch) == 1
        order = [shards[i] for batch in made for i in batch if shards[i]]
        orders.append(made)
        # A shard is left before others of so many rows begin behind it.
        first = {shard: order.index(shard) for shard in order}
        last = {shard: len(order) - 1 - order[::-1].index(shard) for shard in order}
        largest = max(np.unique(shards[shards > 0], return_counts=True)[1])
        assert all(last[shard] - first[shard] < shuffle_rows + largest for shard in first)
    assert orders[0] != orders[1]


def test_shards_with_other_numbers_have_the_same_batches():
    """Numbers come from paths, and a run goes on where its data have been moved."""
    draws = np.random.default_rng(4)
    shards = np.repeat(np.arange(13), 9)
    settings = {"batch_seconds": 20.0, "max_batch_size": 8, "num_buckets": 4, "seed": 1, "epoch": 2, "shuffle_rows": 20}
    expected = [*epoch_batches(many(len(shards)), **settings, shards=shards)]
    for _ in range(3):
        others = np.append(0, draws.permutation(10**6)[:12] + 1)
        assert [*epoch_batches(many(len(shards)), **settings, shards=others[shards])] == expected


def test_without_shards_there_is_one_window():
    durations = many(200)
    settings = {"batch_seconds": 20.0, "max_batch_size": 8, "num_buckets": 4, "seed": 1, "epoch": 2}
    plain = [*epoch_batches(durations, **settings)]
    assert [*epoch_batches(durations, **settings, shards=np.zeros(200), shuffle_rows=10)] == plain


def test_batches_of_some_are_numbered_like_all():
    durations, chosen = np.array(many(60)), np.arange(59, 0, -2)
    settings = {"batch_seconds": 20.0, "max_batch_size": 8, "num_buckets": 4, "seed": 1, "epoch": 0}
    made = epoch_batches(durations[chosen], **settings)
    assert [*made.of(chosen)] == [[chosen[i] for i in batch] for batch in made]
    assert [*made[2:4]] == [*made][2:4]


def test_same_seed_and_epoch_same_batches():
    durations = many()
    assert batches(durations, epoch=3) == batches(list(durations), epoch=3)


def test_other_epoch_or_seed_other_batches():
    durations = many()
    first, second, third = batches(durations), batches(durations, epoch=1), batches(durations, seed=2)
    assert len({tuple(map(tuple, made)) for made in (first, second, third)}) == 3
    members = [{frozenset(batch) for batch in made if len(batch) > 1} for made in (first, second, third)]
    assert len(members[0] & members[1]) < len(members[0]) / 4
    assert len(members[0] & members[2]) < len(members[0]) / 4


def test_a_global_random_state_changes_nothing():
    durations = many(50)
    np.random.seed(1)
    first = batches(durations)
    np.random.seed(2)
    assert batches(durations) == first


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("num_buckets", [1, 12])
def test_tiny_data_sets(count, num_buckets):
    assert sorted(chain.from_iterable(batches([3.0] * count, num_buckets=num_buckets))) == list(range(count))
    assert len(batches([3.0] * count, num_buckets=num_buckets)) == 1
    assert len(batches([3.0] * count, batch_seconds=1.0)) == count


def test_equal_durations_fill_the_batches():
    made = batches([2.5] * 64)
    assert len(made) <= 8 + 3  # each of the four buckets may end in a batch that is not full
    assert batches([2.5] * 64, epoch=1) != made


def test_batches_hold_similar_lengths_and_are_full():
    durations = many(2000)
    made = batches(durations, batch_seconds=160.0, max_batch_size=48, num_buckets=12)
    padded = sum(max(durations[i] for i in batch) * len(batch) for batch in made)
    assert padded < 1.12 * sum(durations)
    assert len(made) < 1.25 * sum(durations) / 160.0


def test_short_batches_come_at_any_time():
    durations = many(2000)
    order = [max(durations[i] for i in batch) for batch in batches(durations)]
    half = len(order) // 2
    assert abs(sum(order[:half]) / half - sum(order[half:]) / (len(order) - half)) < 2.0


def test_nothing_to_batch():
    with pytest.raises(DataError, match="no utterance is left to train on; see the filter report"):
        batches([])
