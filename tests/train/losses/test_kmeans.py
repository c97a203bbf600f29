import numpy as np
import pytest

from kikitori.train.losses.kmeans import AT_ONCE, k_means, nearest


def cloud(centres, each, spread, seed=0):
    generator = np.random.default_rng(seed)
    rows = centres.repeat(each, axis=0) + spread * generator.standard_normal((len(centres) * each, centres.shape[1]))
    return rows.astype(np.float32)


def inertia(rows, means):
    return np.square(rows - means[nearest(rows, means)]).sum()


def test_the_nearest_mean_is_that_of_every_distance():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((AT_ONCE + 50, 3)).astype(np.float32)
    means = generator.standard_normal((7, 3)).astype(np.float32)
    apart = np.square(rows[:, None] - means).sum(axis=2)
    assert nearest(rows, means).tolist() == apart.argmin(axis=1).tolist()


def test_clouds_far_apart_are_the_clusters():
    centres = np.random.default_rng(1).uniform(-100, 100, (12, 4))
    rows = cloud(centres, each=20, spread=0.1)
    means = k_means(rows, 12, np.random.default_rng(0))
    found = nearest(rows, means).reshape(12, 20)
    assert all(len({*row}) == 1 for row in found.tolist())
    assert sorted(found[:, 0].tolist()) == list(range(12))
    expected = rows.reshape(12, 20, 4).mean(axis=1)
    np.testing.assert_allclose(means[found[:, 0]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_ends_where_every_mean_is_that_of_its_rows(seed):
    rows = cloud(np.random.default_rng(seed).uniform(-1, 1, (5, 2)), each=10, spread=0.3, seed=seed)
    means = k_means(rows, 4, np.random.default_rng(seed))
    chosen = nearest(rows, means)
    for number in range(4):
        np.testing.assert_allclose(means[number], rows[chosen == number].mean(axis=0), rtol=1e-4, atol=1e-5)
    random = rows[np.random.default_rng(seed).permutation(len(rows))[:4]]
    assert inertia(rows, means) < inertia(rows, random)


def test_no_cluster_stays_empty_while_there_are_different_rows():
    different = np.arange(6, dtype=np.float32)[:, None] ** 2
    rows = different.repeat([500, 1, 1, 1, 1, 1], axis=0)
    means = k_means(rows, 6, np.random.default_rng(0))
    assert sorted(means[:, 0].tolist()) == different[:, 0].tolist()
    few = k_means(rows[:502], 6, np.random.default_rng(0))  # 3 different rows
    assert np.isfinite(few).all()
    assert inertia(rows[:502], few) == 0.0


def test_the_seed_alone_decides():
    rows = cloud(np.zeros((1, 3)), each=200, spread=1.0)
    first, again, other = (k_means(rows, 9, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
