from itertools import pairwise

import numpy as np
import pytest

from kikitori.align.hmm.gaussians import Mixtures, align, train
from kikitori.align.hmm.graph import SILENCE, utterance_graph
from kikitori.text.lexicon import Lexicon

LEXICON = Lexicon({"a": (("ax",), ("ey", "ax")), "tea": (("t", "iy"),), "eight": (("ey", "t"),)})
NUMBERS = {phone: number for number, phone in enumerate((*LEXICON.phones, SILENCE))}
LABELS = 3 * len(NUMBERS)


def random_mixtures(rng, gaussians=2, size=3):
    weights = rng.random((LABELS, gaussians)) + 0.1
    weights /= weights.sum(axis=1, keepdims=True)
    return Mixtures(weights, rng.normal(size=(LABELS, gaussians, size)), rng.random((LABELS, gaussians, size)) + 0.2)


def test_likelihoods_are_those_of_the_mixtures():
    rng = np.random.default_rng(0)
    mixtures, features = random_mixtures(rng), rng.normal(size=(4, 3)).astype(np.float32)
    scores = mixtures.log_likelihoods(features)
    for frame, row in enumerate(features):
        for label in range(LABELS):
            total = 0.0
            for weight, mean, variance in zip(
                mixtures.weights[label], mixtures.means[label], mixtures.variances[label], strict=True
            ):
                density = np.exp(-0.5 * (row - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
                total += weight * density.prod()
            assert scores[frame, label] == pytest.approx(np.log(total), abs=1e-4)


def best_path(scores, graph):
    """By trying every path."""
    edges = {
        place: [
            place,
            *(p for p in range(len(graph.labels)) if place in graph.before[graph.offsets[p] : graph.offsets[p + 1]]),
        ]
        for place in range(len(graph.labels))
    }
    ways = [[place] for place in range(len(graph.labels)) if graph.first[place]]
    for _ in range(len(scores) - 1):
        ways = [[*way, after] for way in ways for after in edges[way[-1]]]
    ends = [way for way in ways if graph.last[way[-1]]]
    return max((sum(scores[t, graph.labels[p]] for t, p in enumerate(way)), way) for way in ends)


@pytest.mark.parametrize("text", ["a", "tea"])
def test_the_path_found_is_the_best_of_all(text):
    rng = np.random.default_rng(3)
    mixtures, features = random_mixtures(rng), rng.normal(size=(8, 3)).astype(np.float32)
    graph = utterance_graph(text, LEXICON, NUMBERS)
    states, score = align(features, graph, mixtures)
    expected, way = best_path(mixtures.log_likelihoods(features), graph)
    assert score * len(features) == pytest.approx(expected, abs=1e-3)
    assert states.tolist() == graph.labels[way].tolist()


def test_what_is_too_short_is_not_aligned():
    rng = np.random.default_rng(0)
    assert (
        align(
            rng.normal(size=(5, 3)).astype(np.float32), utterance_graph("tea", LEXICON, NUMBERS), random_mixtures(rng)
        )
        is None
    )


def test_borders_are_found_from_a_flat_start():
    rng = np.random.default_rng(1)
    places = rng.normal(size=(len(NUMBERS), 6)) * 3  # where each phone sounds
    features, graphs, truth = [], [], []
    for _ in range(60):
        words = list(rng.choice(["a", "tea", "eight"], size=4))
        phones = [SILENCE, *(p for word in words for p in LEXICON.pronunciations[word][0]), SILENCE]
        lengths = rng.integers(4, 12, size=len(phones))
        spoken = np.repeat([NUMBERS[phone] for phone in phones], lengths)
        features.append((places[spoken] + rng.normal(size=(len(spoken), 6))).astype(np.float32))
        graphs.append(utterance_graph(" ".join(words), LEXICON, NUMBERS))
        truth.append(spoken)
    lines = []
    mixtures = train(features, graphs, LABELS, lines.append)
    found = [align(rows, graph, mixtures)[0] // 3 for rows, graph in zip(features, graphs, strict=True)]
    assert np.mean(np.concatenate(found) == np.concatenate(truth)) > 0.95
    assert len(lines) == 5
    assert all(float(a.split()[-3]) <= float(b.split()[-3]) for a, b in pairwise(lines))
