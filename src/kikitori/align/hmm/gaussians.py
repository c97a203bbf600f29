"""A hidden Markov model of phones with mixtures of Gaussians, trained by Viterbi alignment from a flat start.

As in every recogniser before neural networks (Rabiner 1989; the HTK book, chapter 8): all utterances are cut into equal
pieces, a Gaussian is estimated for each state, the utterances are aligned anew, and so on; then every Gaussian is split
in two. Transitions have no probabilities of their own, which for the borders of phones makes no difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from kikitori.align.hmm.graph import Graph
from kikitori.compiled import compiled

Features = NDArray[np.float32]
"""Of an utterance: (frames, size)."""
States = NDArray[np.int32]
"""State label of each frame, (frames,)."""
ROUNDS = (8, 4, 4, 4, 4)
"""Alignments with 1, 2, 4, 8 and 16 Gaussians."""
VARIANCE_FLOOR = 0.02
LEAST_COUNT = 5.0
"""Frames below which a Gaussian is not estimated anew."""
SPREAD = 0.2
"""How far the halves of a Gaussian move apart, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Mixtures of Gaussians with diagonal covariances, one for each state label.

    Attributes:
        weights: (labels, gaussians).
        means: (labels, gaussians, size).
        variances: (labels, gaussians, size).
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]

    def log_likelihoods(self, features: Features) -> NDArray[np.float32]:
        """Of every frame under every state label, (frames, labels)."""
        precisions = 1.0 / self.variances
        with np.errstate(divide="ignore"):
            constant = np.log(self.weights) - 0.5 * (np.log(2 * pi * self.variances) + self.means**2 * precisions).sum(
                axis=2
            )
        shape, size = constant.shape, features.shape[1]
        terms = np.concatenate([self.means * precisions, -0.5 * precisions], axis=2).reshape(-1, 2 * size)
        scores = np.concatenate([features, features**2], axis=1) @ terms.T.astype(np.float32)
        scores = (scores + constant.reshape(-1).astype(np.float32)).reshape(len(features), *shape)
        best = scores.max(axis=2)
        summed: NDArray[np.float32] = best + np.log(np.exp(scores - best[..., None]).sum(axis=2))
        return summed

    def split(self) -> "Mixtures":
        """Twice as many Gaussians."""
        away = SPREAD * np.sqrt(self.variances)
        return Mixtures(
            np.concatenate([self.weights, self.weights], axis=1) / 2,
            np.concatenate([self.means - away, self.means + away], axis=1),
            np.concatenate([self.variances, self.variances], axis=1),
        )


def align(features: Features, graph: Graph, mixtures: Mixtures) -> tuple[States, float] | None:
    """The most likely states of an utterance and their log-likelihood per frame; None if it is too short for them."""
    scores = mixtures.log_likelihoods(features)
    states = np.empty(len(features), np.int32)
    total = _viterbi(scores, graph, states)
    return None if total == -np.inf else (states, total / len(features))


def train(
    features: Sequence[Features], graphs: Sequence[Graph], num_labels: int, log_line: Callable[[str], None]
) -> Mixtures:
    """Mixtures from utterances and what was said in them."""
    cuts = [_flat(len(rows), graph) for rows, graph in zip(features, graphs, strict=True)]
    everything = np.concatenate(features)
    start = Mixtures(
        np.ones((num_labels, 1)),
        np.broadcast_to(everything.mean(axis=0), (num_labels, 1, everything.shape[1])).copy(),
        np.broadcast_to(everything.var(axis=0), (num_labels, 1, everything.shape[1])).copy(),
    )
    floor = VARIANCE_FLOOR * everything.var(axis=0)
    mixtures = _estimated(start, features, cuts, floor)
    for place, rounds in enumerate(ROUNDS):
        mixtures = mixtures.split() if place else mixtures
        for _ in range(rounds):
            found = [align(rows, graph, mixtures) for rows, graph in zip(features, graphs, strict=True)]
            fitting = [(rows, *each) for rows, each in zip(features, found, strict=True) if each is not None]
            mixtures = _estimated(mixtures, [rows for rows, _, _ in fitting], [cut for _, cut, _ in fitting], floor)
        mean = sum(len(rows) * score for rows, _, score in fitting) / sum(len(rows) for rows, _, _ in fitting)
        log_line(f"{2**place} Gaussians a state: log-likelihood {mean:.3f} a frame")
    return mixtures


def _flat(frames: int, graph: Graph) -> States:
    """Equal pieces for the states of the first path through a graph, silence only at the ends."""
    place = int(np.flatnonzero(graph.last)[-1])
    path = [place]
    while graph.offsets[place] < graph.offsets[place + 1]:
        place = int(graph.before[graph.offsets[place]])
        path.append(place)
    pieces = graph.labels[path[::-1]]
    return pieces[np.arange(frames) * len(pieces) // max(frames, 1)]


def _estimated(
    mixtures: Mixtures, features: Sequence[Features], cuts: Sequence[States], floor: NDArray[np.float64]
) -> Mixtures:
    """The mixtures that fit frames with given states best."""
    counts = np.zeros(mixtures.weights.shape)
    sums, squares = np.zeros(mixtures.means.shape), np.zeros(mixtures.means.shape)
    with np.errstate(divide="ignore"):
        constant = np.log(mixtures.weights) - 0.5 * np.log(mixtures.variances).sum(axis=2)
    for rows, states in zip(features, cuts, strict=True):
        _accumulate(rows, states, constant, mixtures.means, 0.5 / mixtures.variances, counts, sums, squares)
    seen = counts >= LEAST_COUNT
    safe = np.where(seen, counts, 1.0)[..., None]
    means = np.where(seen[..., None], sums / safe, mixtures.means)
    variances = np.where(seen[..., None], np.maximum(squares / safe - means**2, floor), mixtures.variances)
    total = counts.sum(axis=1, keepdims=True)
    weights = np.where(total > 0, np.maximum(counts, LEAST_COUNT / 10) / np.maximum(total, 1.0), mixtures.weights)
    return Mixtures(weights / weights.sum(axis=1, keepdims=True), means, variances)


@compiled
def _accumulate(
    features: Features,
    states: States,
    constant: NDArray[np.float64],
    means: NDArray[np.float64],
    halves: NDArray[np.float64],
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Adds the frames of an utterance to the statistics of their states; `halves` are halves of precisions."""
    gaussians, size = means.shape[1], means.shape[2]
    posteriors = np.empty(gaussians)
    for frame in range(len(features)):
        state = states[frame]
        best = -np.inf
        for g in range(gaussians):
            score = constant[state, g]
            for i in range(size):
                away = features[frame, i] - means[state, g, i]
                score -= away * away * halves[state, g, i]
            posteriors[g] = score
            best = max(best, score)
        total = 0.0
        for g in range(gaussians):
            posteriors[g] = np.exp(posteriors[g] - best)
            total += posteriors[g]
        for g in range(gaussians):
            weight = posteriors[g] / total
            if weight > 1e-4:
                counts[state, g] += weight
                for i in range(size):
                    value = features[frame, i]
                    sums[state, g, i] += weight * value
                    squares[state, g, i] += weight * value * value


@compiled
def _viterbi(scores: NDArray[np.float32], graph: Graph, states: States) -> float:
    """Writes the best path's labels into `states`; its log-likelihood, -inf if no path is short enough."""
    labels, offsets, before, first, last = graph
    frames, size = len(scores), len(labels)
    came = np.empty((frames, size), np.int32)
    now, then = np.full(size, -np.inf), np.full(size, -np.inf)
    for s in range(size):
        if first[s]:
            now[s] = scores[0, labels[s]]
    for frame in range(1, frames):
        now, then = then, now
        for s in range(size):
            best, place = then[s], s
            for edge in range(offsets[s], offsets[s + 1]):
                if then[before[edge]] > best:
                    best, place = then[before[edge]], before[edge]
            now[s] = best + scores[frame, labels[s]]
            came[frame, s] = place
    total, place = -np.inf, -1
    for s in range(size):
        if last[s] and now[s] > total:
            total, place = now[s], s
    if place >= 0:
        for frame in range(frames - 1, -1, -1):
            states[frame] = labels[place]
            if frame:
                place = came[frame, place]
    return total
