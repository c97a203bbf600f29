"""Work that several recognisers share: batches, what a dead process takes with it, and the order of results."""

import pickle

import numpy as np
import pytest

from kikitori.engine.pool import LostError, batches_by_seconds, each, in_order
from kikitori.errors import AudioError, ConfigError


class Shuffled:
    """A pool in this process, whose results come in an order of their own; whoever works on a `deadly` item dies."""

    def __init__(self, deadly=(), size=2):
        self.deadly, self.size, self.done = deadly, size, []

    def run(self, work, batches):
        for number in np.random.default_rng(0).permutation(len(batches)).tolist():
            batch = batches[number]
            self.done.append([*batch])
            yield number, LostError("died") if any(item in self.deadly for item in batch) else work(None, batch)


def _doubled(_, batch):
    return [2 * item for item in batch]


@pytest.mark.parametrize("most", [0.0, 1.0, 5.0, 1e9])
def test_batches_hold_every_item_once_and_no_more_than_their_seconds(most):
    seconds = np.random.default_rng(0).choice([0.0, 0.3, 1.5, 4.0], 40).tolist()
    batches = batches_by_seconds(seconds, most)
    assert sorted(number for batch in batches for number in batch) == [*range(40)]
    lengths = [seconds[number] for batch in batches for number in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or sum(seconds[number] for number in batch) <= most + 1e-9 for batch in batches)
    assert batches_by_seconds([], most) == []


def test_every_item_has_one_result_whatever_the_order():
    items, pool = [*range(50)], Shuffled()
    found = [*each(pool, _doubled, items, [1.0 + item % 7 for item in items])]
    assert sorted(found) == [(number, 2 * number) for number in items]
    assert found != sorted(found)
    assert [*in_order(found)] == [2 * item for item in items]
    assert len(pool.done) >= 8 * pool.size  # so that no process is long alone at the end
    assert [*each(Shuffled(), _doubled, [], [])] == []


def test_an_item_that_ends_its_process_is_lost_alone():
    pool = Shuffled(deadly=[3, 11])
    found = dict(each(pool, _doubled, [*range(12)], [0.001] * 11 + [1.0]))
    assert sorted(found) == [*range(12)]
    assert {number for number, result in found.items() if isinstance(result, LostError)} == {3, 11}
    assert all(found[number] == 2 * number for number in found if number not in (3, 11))
    assert [3] in pool.done
    assert pool.done.count([11]) == 1  # was alone at once, and is not tried once more


def test_results_wait_for_those_before_them_and_no_longer():
    assert next(in_order(iter([(0, "a"), (2, "c")]))) == "a"
    assert [*in_order([(2, "c"), (0, "a"), (1, "b")])] == ["a", "b", "c"]


def test_errors_travel_between_processes():
    for error in (LostError("a", remedy="b"), AudioError("a", where="x.wav"), ConfigError("a")):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(copy), str(copy), copy.what, copy.where, copy.remedy) == (
            *(type(error), str(error), error.what, error.where, error.remedy),
        )
