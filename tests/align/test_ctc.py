from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.align.ctc import ctc_align
from kikitori.errors import ModelError
from kikitori.search.ctc.best_path import collapse


def random_log_probs(num_frames: int, num_labels: int, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0.0, 2.0, (num_frames, num_labels + 1)).astype(np.float32)
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def best_score(log_probs: np.ndarray, labels: list[int]) -> float:
    """Over all paths that write the labels."""
    num_frames, outputs = log_probs.shape
    return max(
        sum(float(log_probs[frame, output]) for frame, output in enumerate(path))
        for path in product(range(outputs), repeat=num_frames)
        if collapse(path, outputs - 1) == labels
    )


def path_of(spans: list[tuple[int, int]], labels: list[int], num_frames: int, blank: int) -> list[int]:
    path = [blank] * num_frames
    for (start, end), label in zip(spans, labels, strict=True):
        path[start:end] = [label] * (end - start)
    return path


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 1), max_size=4), st.integers(0, 10**6))
def test_the_path_writes_the_labels_and_none_is_better(num_frames, labels, seed):
    log_probs = random_log_probs(num_frames, 2, seed)
    spans = ctc_align(log_probs, labels)
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if spans is None:
        assert needed > num_frames
        return
    assert needed <= num_frames
    path = path_of(spans, labels, num_frames, blank=2)
    assert collapse(path, 2) == labels
    found = sum(float(log_probs[frame, output]) for frame, output in enumerate(path))
    assert found == pytest.approx(best_score(log_probs, labels), abs=1e-4)


def plain_spans(log_probs, labels):
    """The same frame by frame in numpy, of equal paths the one that moves least."""
    blank = log_probs.shape[1] - 1
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probs[:, states].astype(np.float64)
    steps = np.zeros(emitted.shape, dtype=np.int8)
    scores = np.full(len(states), -np.inf)
    scores[:2] = emitted[0, :2]
    for frame in range(1, len(log_probs)):
        candidates = np.full((3, len(states)), -np.inf)
        candidates[0] = scores
        candidates[1, 1:] = scores[:-1]
        candidates[2, 2:] = np.where(may_skip[2:], scores[:-2], -np.inf)
        steps[frame] = candidates.argmax(axis=0)
        scores = candidates.max(axis=0) + emitted[frame]
    state = len(states) - 1 if scores[-1] > scores[-2] else len(states) - 2
    path = np.empty(len(log_probs), dtype=np.int64)
    for frame in range(len(log_probs) - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    places = 2 * np.arange(len(labels)) + 1
    return [*zip(np.searchsorted(path, places).tolist(), np.searchsorted(path, places, "right").tolist(), strict=True)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 10**6), st.booleans())
def test_compiled_is_plain(num_frames, labels, seed, impossible):
    log_probs = random_log_probs(num_frames, 5, seed)
    if impossible:
        log_probs[np.random.default_rng(seed).random(log_probs.shape) < 0.3] = -np.inf
    spans = ctc_align(log_probs, labels)
    if spans is not None:
        assert spans == plain_spans(log_probs, labels)
        assert ctc_align(np.asfortranarray(log_probs.astype(np.float64)), labels) == spans


def test_a_long_certain_path_is_found():
    path = [3, 0, 0, 3, 0, 1, 1, 3, 3, 2]
    log_probs = np.full((10, 4), -9.0, np.float32)
    log_probs[np.arange(10), path] = -0.01
    assert ctc_align(log_probs, [0, 0, 1, 2]) == [(1, 3), (4, 5), (5, 7), (9, 10)]
    assert ctc_align(log_probs, []) == []


@pytest.mark.parametrize("label", [-1, 3, 50_000])
def test_labels_of_other_units_are_refused(label):
    with pytest.raises(ModelError, match="none of the CTC head's 3; encode the text in the units of the CTC head"):
        ctc_align(random_log_probs(8, 3, 0), [0, label])
