from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.search.ctc.best_path import collapse, ctc_greedy


def merged_then_dropped(path, blank):
    merged = [label for i, label in enumerate(path) if i == 0 or path[i - 1] != label]
    return [label for label in merged if label != blank]


def best_path(log_probs):
    frames, outputs = log_probs.shape
    paths = product(range(outputs), repeat=frames)
    return max(paths, key=lambda path: sum(float(log_probs[t, label]) for t, label in enumerate(path)))


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ([], []),
        ([9, 9], []),
        ([1, 1, 1], [1]),
        ([1, 9, 1], [1, 1]),
        ([9, 0, 0, 9, 9, 2, 1, 1, 9], [0, 2, 1]),
        ([0, 9], [0]),
    ],
)
def test_collapse(path, labels):
    assert collapse(path, 9) == collapse(tuple(path), 9) == labels


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3), max_size=20))
def test_collapse_merges_then_drops(path):
    assert collapse(path, 3) == merged_then_dropped(path, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))
def test_greedy_is_the_best_path(frames, num_labels, seed):
    logits = torch.randn(1, frames, num_labels + 1, generator=torch.Generator().manual_seed(seed))
    log_probs = logits.log_softmax(-1)
    path = best_path(log_probs[0])
    ((best,),) = ctc_greedy(log_probs, torch.tensor([frames]))
    assert list(best.labels) == merged_then_dropped(path, num_labels)
    assert best.scores == {"ctc": best.score}
    assert best.score == pytest.approx(sum(float(log_probs[0, t, label]) for t, label in enumerate(path)), rel=1e-5)


def test_padding_is_not_read_and_rows_are_independent():
    log_probs = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    lengths = torch.tensor([10, 4, 0])
    together = ctc_greedy(log_probs, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert together[row] == ctc_greedy(log_probs[row : row + 1, :length], lengths[row : row + 1])[0]
    assert [(best.labels, best.score) for best in together[2]] == [((), 0.0)]


def test_empty_batch():
    assert ctc_greedy(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.long)) == []
