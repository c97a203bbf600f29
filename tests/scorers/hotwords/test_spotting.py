"""Keyword spotting against all paths over all stretches of frames."""

from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.hotwords.spotting import phrase_trie, spot
from kikitori.search.ctc.best_path import collapse

LABELS, BORDER = 3, 2
NO_BORDERS = np.empty(0, np.int64)
labels = st.lists(st.integers(0, LABELS - 1), min_size=1, max_size=3).filter(lambda each: each[-1] != BORDER)
spellings = st.lists(labels, min_size=1, max_size=3)


def every_stretch(logits, bordered):
    """The best path that writes some labels in any stretch of the frames, by these labels, above the best of all.

    With borders there is one in the next frame, or the stretch is the last.
    """
    gaps = (logits - logits.amax(dim=1, keepdim=True)).double().numpy()
    found = {}
    for size in range(1, len(gaps) + 1):
        for path in product(range(LABELS + 1), repeat=size):
            labels = tuple(collapse(path, LABELS))
            for start in range(len(gaps) - size + 1):
                stop = start + size
                score = sum(gaps[start + place, output] for place, output in enumerate(path))
                score += gaps[stop, BORDER] if bordered and stop < len(gaps) else 0.0
                found[labels] = max(found.get(labels, -inf), score)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(spellings, min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(0, 9999),
    st.floats(-3.0, 0.0),
    st.booleans(),
)
def test_evidence_is_that_of_the_best_path_of_all(phrases, frames, seed, least, bordered):
    logits = 2.0 * torch.randn(frames, LABELS + 1, generator=torch.Generator().manual_seed(seed))
    best = every_stretch(logits, bordered)
    sizes = [0.5 + len(ways[0]) for ways in phrases]
    totals = [max(best.get(tuple(each), -inf) for each in ways) for ways in phrases]
    expected = [total / size for total, size in zip(totals, sizes, strict=True)]
    expected = [each if each >= least else -inf for each in expected]
    borders = np.array([BORDER]) if bordered else NO_BORDERS
    found = spot(phrase_trie(phrases, sizes), logits, least, borders)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_what_the_best_path_writes_has_all_the_evidence_that_there_can_be():
    logits = torch.full((7, LABELS + 1), -5.0)
    for frame, output in enumerate((3, 0, 0, 3, 0, 1, 3)):
        logits[frame, output] = 5.0
    trie = phrase_trie([[[0, 0, 1]], [[0, 0]], [[0, 1]], [[2]]], [3.0, 2.0, 2.0, 1.0])
    assert spot(trie, logits, -1.0, NO_BORDERS).tolist() == [0.0, 0.0, 0.0, -inf]
    assert spot(trie, logits, -1.0, np.array([BORDER])).tolist() == [0.0, -inf, 0.0, -inf]


def test_many_phrases_share_their_beginnings():
    generator = np.random.default_rng(0)
    phrases = [[generator.integers(0, LABELS, 6).tolist()] for _ in range(500)]
    trie = phrase_trie(phrases, [6.0] * 500)
    assert len(trie.labels) < 1 + sum(LABELS**depth for depth in range(1, 7))
    logits = torch.from_numpy(generator.normal(size=(40, LABELS + 1)))
    together = spot(trie, logits, -2.0, NO_BORDERS)
    assert together.tolist() == [spot(phrase_trie([each], [6.0]), logits, -2.0, NO_BORDERS)[0] for each in phrases]
    assert spot(phrase_trie([], []), logits, -2.0, NO_BORDERS).tolist() == []
