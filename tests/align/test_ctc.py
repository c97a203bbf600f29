from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.align.ctc import ctc_align
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


def test_a_long_certain_path_is_found():
    path = [3, 0, 0, 3, 0, 1, 1, 3, 3, 2]
    log_probs = np.full((10, 4), -9.0, np.float32)
    log_probs[np.arange(10), path] = -0.01
    assert ctc_align(log_probs, [0, 0, 1, 2]) == [(1, 3), (4, 5), (5, 7), (9, 10)]
    assert ctc_align(log_probs, []) == []
