"""k-means: rows into clusters around their means (Lloyd 1982), begun as k-means++ (Arthur and Vassilvitskii 2007)."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""(rows, size)."""
ROUNDS = 30
AT_ONCE = 16384
"""Rows whose distances are in memory at a time."""


def k_means(rows: Rows, clusters: int, generator: np.random.Generator) -> Rows:
    """Means of clusters of rows, (clusters, size); equal ones only where there are fewer different rows."""
    means = _spread(rows, clusters, generator)
    for _ in range(ROUNDS):
        chosen, distances = _nearest(rows, means)
        counts = np.bincount(chosen, minlength=clusters)
        filled = np.flatnonzero(counts)
        firsts = np.cumsum(counts[filled]) - counts[filled]
        before = means.copy()
        means[filled] = np.add.reduceat(rows[np.argsort(chosen, kind="stable")], firsts) / counts[filled, None]
        # An empty cluster begins anew where the means fit worst.
        empty = np.flatnonzero(counts == 0)
        means[empty] = rows[np.argsort(-distances, kind="stable")[: len(empty)]]
        if np.array_equal(means, before):
            break
    return means


def nearest(rows: Rows, means: Rows) -> NDArray[np.int64]:
    """The cluster of each row, (rows,)."""
    return _nearest(rows, means)[0]


def _spread(rows: Rows, clusters: int, generator: np.random.Generator) -> Rows:
    """Rows to begin with, each drawn with the square of its distance from the nearest of those before."""
    places = [int(generator.integers(len(rows)))]
    lengths = np.square(rows).sum(axis=1)
    distances = np.full(len(rows), np.inf)
    while len(places) < clusters:
        last = places[-1]
        apart = lengths + lengths[last] - 2.0 * (rows @ rows[last])
        distances = np.minimum(distances, np.maximum(apart, 0.0))
        distances[last] = 0.0
        sums = np.cumsum(distances)
        place = np.searchsorted(sums, generator.random() * sums[-1], side="right")
        places.append(min(int(place), len(rows) - 1))
    return rows[places]


def _nearest(rows: Rows, means: Rows) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest mean of each row, and the square of its distance."""
    chosen, distances = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    lengths = np.square(means).sum(axis=1)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        apart = lengths - 2.0 * (part @ means.T)
        best = apart.argmin(axis=1)
        chosen[start : start + AT_ONCE] = best
        distances[start : start + AT_ONCE] = apart[np.arange(len(part)), best] + np.square(part).sum(axis=1)
    return chosen, distances
