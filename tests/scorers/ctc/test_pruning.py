"""Candidates of a frame against sorting all of them, and the single pass over logits against log_softmax."""

from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.ctc.pruning import BLOCK, LANES, candidates, candidates_of_logits


def plain(log_probs, most, min_log_prob):
    """The same by sorting: labels and log-probabilities per frame."""
    rows = []
    for row in log_probs[:, :-1].tolist():
        best = sorted(
            (-p, label) for label, p in enumerate(row) if p > -inf and (min_log_prob is None or p >= min_log_prob)
        )
        rows.append(sorted((label, -p) for p, label in best[:most]))
    return rows


def rows_of(found):
    pairs = list(zip(found.labels.tolist(), found.log_probs.tolist(), strict=True))
    return [pairs[start:stop] for start, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def random_logits(frames, outputs, seed, levels=None):
    logits = 4 * torch.randn(frames, outputs, generator=torch.Generator().manual_seed(seed))
    return logits if levels is None else (logits * levels).round() / levels  # many equal ones


SIZES = [1, 2, 5, LANES, LANES + 2, 200, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 70]
cases = (
    st.integers(0, 3),
    st.sampled_from(SIZES),
    st.integers(0, 9999),
    st.sampled_from([None, 1, 2, 20, LANES, 100]),
    st.sampled_from([None, 0.0, -3.0, -9.0]),
    st.sampled_from([None, 1]),
)


@settings(max_examples=200, deadline=None)
@given(*cases)
def test_candidates_are_the_best(frames, outputs, seed, most, min_log_prob, levels):
    log_probs = random_logits(frames, outputs, seed, levels).log_softmax(-1)
    for values in (log_probs, log_probs.double()):
        found = candidates(values, most=most, min_log_prob=min_log_prob)
        assert rows_of(found) == plain(values, most, min_log_prob)
        assert found.blank.tolist() == values[:, -1].tolist()
        assert (found.labels.dtype, found.log_probs.dtype) == (np.int32, np.float64)


@settings(max_examples=200, deadline=None)
@given(*cases, st.sampled_from([0.0, 300.0, -300.0]))
def test_one_pass_over_logits(frames, outputs, seed, most, min_log_prob, levels, offset):
    logits = random_logits(frames, outputs, seed, levels) + offset
    exact = logits.double().log_softmax(-1)
    # A label that is right at the floor may fall on either side.
    floor = None if min_log_prob is None else min_log_prob - 1e-3
    if floor is not None and bool(((exact - floor).abs() < 1e-4).any()):
        return
    found = candidates_of_logits(logits, most=most, min_log_prob=floor)
    expected = plain(exact, most, floor)
    assert [[label for label, _ in row] for row in rows_of(found)] == [[label for label, _ in row] for row in expected]
    assert found.log_probs == pytest.approx([p for row in expected for _, p in row], abs=1e-5)
    assert found.blank == pytest.approx(exact[:, -1].numpy(), abs=1e-5)


def test_peaked_flat_and_impossible_frames():
    logits = torch.zeros(6, 3001)
    logits[0, 7] = 80.0
    logits[1, -1] = 80.0
    logits[2] = -inf
    logits[2, 2500] = 3.0
    logits[3, :-1] = -inf
    logits[4] = -inf
    found = candidates_of_logits(logits, most=2)
    exact = logits.double().log_softmax(-1)
    rows = rows_of(found)
    assert [label for label, _ in rows[0]] == [0, 7]
    assert rows[2] == [(2500, pytest.approx(0.0, abs=1e-6))]
    assert (rows[3], rows[4]) == ([], [])
    assert [label for label, _ in rows[5]] == [0, 1]
    assert found.blank[[0, 1, 5]] == pytest.approx(exact[[0, 1, 5], -1].numpy(), abs=1e-5)
    assert found.blank[[2, 3, 4]].tolist() == [-inf, 0.0, -inf]


def test_what_is_no_number_is_no_candidate():
    log_probs = torch.full((2, 5), 0.2).log()
    log_probs[0, 1] = log_probs[1, 4] = torch.nan
    found = candidates(log_probs)
    assert found.labels.tolist() == [0, 2, 3, 0, 1, 2, 3]
    assert found.blank.tolist() == [log_probs[0, 4], -inf]
    broken = candidates_of_logits(torch.full((2, 3000), torch.nan))
    assert len(broken.labels) == 0
    assert broken.blank.tolist() == [-inf, -inf]


def test_other_layouts_and_precisions():
    logits = random_logits(4, 50, 0)
    found = candidates_of_logits(logits, most=5)
    turned = candidates_of_logits(logits.t().contiguous().t(), most=5)
    assert rows_of(found) == rows_of(turned)
    half = candidates_of_logits(logits.to(torch.bfloat16), most=5)
    assert rows_of(half) == rows_of(candidates_of_logits(logits.to(torch.bfloat16).float(), most=5))
    tracked = candidates(logits.log_softmax(-1).requires_grad_(), most=5)
    assert tracked.labels.tolist() == found.labels.tolist()


def test_long_and_dense_input_makes_room():
    log_probs = random_logits(50, 300, 0).log_softmax(-1)
    found = candidates(log_probs)
    assert len(found.labels) == 50 * 299
    assert found.log_probs.reshape(50, 299) == pytest.approx(log_probs[:, :-1].numpy())
