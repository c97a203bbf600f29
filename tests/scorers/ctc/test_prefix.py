"""CTC prefix scores against sums over all label sequences, and against the recursion written out in logarithms."""

from collections import defaultdict
from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kikitori.errors import ModelError
from kikitori.scorers.ctc.prefix import CTCPrefixScorer, ctc_outputs, ctc_outputs_of_logits
from tests.search.ctc.test_beam import every_path, random_log_probs

ONE = torch.tensor([1])


def scorer(log_probs, **options):
    return CTCPrefixScorer(ctc_outputs([log_probs], log_probs.shape[1] - 1, likely=8), **options)


def state_of(each, labels, batch=1):
    state = each.start(batch)
    for label in labels:
        state, _ = each.extend(state, torch.zeros(1, dtype=torch.long), torch.tensor([[label]]), ONE)
    return state


def plain_scores(log_probs, labels):
    """Log-probability of a prefix and of the sequence itself, as in papers.md B3.2."""
    log_probs = log_probs.double().numpy()
    b, n = np.concatenate([[0.0], log_probs[:, -1].cumsum()]), np.full(len(log_probs) + 1, -inf)
    total, last = 0.0, None
    for label in labels:
        phi = b if label == last else np.logaddexp(b, n)
        new_b, new_n, total = np.full_like(b, -inf), np.full_like(n, -inf), -inf
        for t, frame in enumerate(log_probs):
            new_n[t + 1] = np.logaddexp(new_n[t], phi[t]) + frame[label]
            new_b[t + 1] = np.logaddexp(new_b[t], new_n[t]) + frame[-1]
            total = np.logaddexp(total, phi[t] + frame[label])
        b, n, last = new_b, new_n, label
    return float(total), float(np.logaddexp(b[-1], n[-1]))


def log_sum(values):
    return float(np.logaddexp.reduce([-inf, *values]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.integers(1, 3), st.integers(0, 9999))
def test_a_prefix_has_what_all_that_begins_with_it_has(frames, num_labels, seed):
    log_probs = random_log_probs(frames, num_labels, seed)
    sequences, each, begun = every_path(log_probs, "sum"), scorer(log_probs), defaultdict(list)
    for labels, score in sequences.items():
        for size in range(len(labels) + 1):
            begun[labels[:size]].append(score)
    for labels in [*sequences][:40]:
        state = state_of(each, labels)
        prefix = log_sum(begun[labels])
        assert state.prefix[0] == pytest.approx(prefix, abs=1e-9)
        following = each.log_probs(state, torch.tensor([0]))[0]
        assert float(following[-1]) == pytest.approx(sequences[labels] - prefix, abs=1e-9)
        assert float(following.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)  # something follows, or nothing does
        for label in range(num_labels):
            expected = log_sum(begun[*labels, label])
            assert float(following[label]) == pytest.approx(expected - prefix, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 9999), st.floats(0.1, 60.0))
@example(56, 5, 652, 29.0)
def test_compiled_is_plain(frames, num_labels, seed, sharpness):
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy(generator.normal(size=(frames, num_labels + 1)) * sharpness)
    log_probs, each = logits.log_softmax(-1), scorer(logits.log_softmax(-1))
    labels = generator.integers(0, num_labels, generator.integers(0, frames + 2)).tolist()
    state = state_of(each, labels)
    prefix, sequence = plain_scores(log_probs, labels)
    if state.prefix[0] == -inf < prefix:  # as below, for a label that is there already
        before = [plain_scores(log_probs, labels[:count])[0] for count in range(len(labels) + 1)]
        assert min(np.diff(before)) < -400
        return
    assert state.prefix[0] == pytest.approx(prefix, abs=1e-6)
    if prefix > -inf:
        following = each.log_probs(state, torch.tensor([0]))[0]
        assert float(following[-1]) == pytest.approx(sequence - prefix, abs=1e-6)
        expected = [plain_scores(log_probs, [*labels, label])[0] - prefix for label in range(num_labels)]
        # What is missed altogether is what no float can hold beside the rest.
        for found, score in zip(following[:-1].tolist(), expected, strict=True):
            assert found == pytest.approx(score, abs=1e-6) or (found == -inf and score < -400)


def test_nothing_vanishes_in_an_hour_of_speech():
    log_probs = torch.from_numpy(np.random.default_rng(0).normal(size=(5000, 6)) * 4).log_softmax(-1)
    labels = np.random.default_rng(1).integers(0, 5, 20).tolist()
    state = state_of(each := scorer(log_probs), labels)
    prefix, sequence = plain_scores(log_probs, labels)
    assert sequence < -5000
    assert state.prefix[0] == pytest.approx(prefix, abs=1e-6)
    assert float(each.log_probs(state, torch.tensor([0]))[0, -1]) == pytest.approx(sequence - prefix, abs=1e-6)


def batch_of(seed, sizes=(7, 0, 12), num_labels=9):
    rows = [random_log_probs(size, num_labels, seed + size).float() for size in sizes]
    logits = torch.full((len(rows), max(sizes), num_labels + 1), nan)
    for padded, row, size in zip(logits, rows, sizes, strict=True):
        padded[:size] = row + torch.arange(size)[:, None]  # a head does not normalise
    return rows, logits, torch.tensor(sizes)


def walk(each, batch, seed, num_labels=9):
    """Scores of a few steps of a search that forks, reorders and drops hypotheses."""
    random = np.random.default_rng(seed)
    state, utterances, found = each.start(batch), list(range(batch)), []
    for step in range(4):
        rows = torch.from_numpy(random.integers(0, len(utterances), 5))
        labels = torch.from_numpy(random.integers(0, num_labels, (5, 2)))
        state, given_scores = each.extend(state, rows, labels, torch.tensor([0, 1, 2, 1, step % 2]))
        utterances = [utterances[row] for row in rows.tolist()]
        assert state.utterances.tolist() == utterances
        found += [given_scores, each.log_probs(state, torch.arange(5)), each.log_probs(state, torch.tensor([3, 3, 0]))]
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("seed", range(5))
def test_logits_of_a_batch(seed):
    rows, logits, lengths = batch_of(seed)
    by_log_probs = walk(CTCPrefixScorer(ctc_outputs(rows, 9)), 3, seed)
    by_logits = walk(CTCPrefixScorer(ctc_outputs_of_logits(logits, lengths, likely=4)), 3, seed)
    possible = by_log_probs.isfinite()
    assert torch.equal(possible, by_logits.isfinite())
    assert (by_log_probs - by_logits)[possible].abs().max() < 1e-4


def test_several_labels_at_once_are_those_one_by_one():
    each = scorer(log_probs := random_log_probs(9, 4, 0))
    row, labels = torch.tensor([0]), [1, 1, 3]
    state, given_scores = each.extend(each.start(1), row, torch.tensor([[*labels, 2]]), torch.tensor([3]))
    one_by_one = state_of(each, labels)
    assert given_scores[0, 3] == 0.0
    assert float(given_scores.sum()) == pytest.approx(plain_scores(log_probs, labels)[0], abs=1e-9)
    assert state.prefix.tolist() == one_by_one.prefix.tolist()
    assert torch.equal(each.log_probs(state, row), each.log_probs(one_by_one, row))


def test_a_few_labels_are_scored_as_all_of_them():
    each = scorer(random_log_probs(9, 6, 0))
    state = state_of(each, [2, 4])
    every = each.log_probs(state, torch.tensor([0]))[0]
    few = each.log_probs_of(state, torch.tensor([0, 0]), torch.tensor([[4, -1, 0], [5, 5, -1]]))
    none = float("-inf")
    expected = [[every[4], none, every[0], every[6]], [every[5], every[5], none, every[6]]]
    assert few.tolist() == [[float(value) for value in row] for row in expected]


def test_a_window_loses_nothing_that_counts():
    log_probs = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 6)) * 8).log_softmax(-1)
    labels = [label for label in log_probs.argmax(-1).tolist() if label != 5]
    exact, windowed = scorer(log_probs), scorer(log_probs, window=40.0)
    state, row = state_of(exact, labels[:30]), torch.tensor([0])
    assert exact.log_probs(state, row).tolist() == [pytest.approx(windowed.log_probs(state, row)[0].tolist(), abs=1e-6)]


def test_what_is_likeliest():
    each = scorer(log_probs := random_log_probs(9, 6, 3))
    for labels in ([], [2], [2, 2, 5]):
        state, row = state_of(each, labels), torch.tensor([0])
        order = each.log_probs(state, row)[0, :-1].argsort(descending=True).tolist()
        assert each.likeliest(state, row, 4).tolist() == [order[:4]]
        assert each.likeliest(state, row, 8).tolist() == [[*order, -1, -1]]
    assert each.likeliest(state, row, 0).shape == (1, 0)
    unasked = CTCPrefixScorer(ctc_outputs([log_probs], 6))
    assert unasked.likeliest(unasked.start(1), row, 2).tolist() == [[-1, -1]]


def test_a_vocabulary_of_some_labels():
    log_probs = random_log_probs(6, 3, 0)
    ids = np.array([1, 4, 7], np.int32)
    few, renamed = scorer(log_probs), CTCPrefixScorer(ctc_outputs([log_probs], 9, ids=[ids], likely=3))
    state, other, row = state_of(few, [0, 2]), state_of(renamed, [1, 7]), torch.tensor([0])
    found = renamed.log_probs(other, row)[0]
    assert found[[1, 4, 7, 9]].tolist() == few.log_probs(state, row)[0].tolist()
    assert found[[0, 2, 3, 5, 6, 8]].eq(-inf).all()
    assert renamed.likeliest(other, row, 3).tolist() == [ids[few.likeliest(state, row, 3)[0]].tolist()]
    state, given_scores = renamed.extend(other, row, torch.tensor([[3]]), ONE)
    assert given_scores.tolist() == [[-inf]]
    assert renamed.log_probs(state, row).eq(-inf).all()


def test_a_store_that_is_too_small(monkeypatch):
    expected = walk(CTCPrefixScorer(ctc_outputs(batch_of(0)[0], 9)), 3, 0)
    monkeypatch.setattr("kikitori.scorers.ctc.outputs.STORED", 40)  # three outputs
    assert torch.equal(walk(CTCPrefixScorer(ctc_outputs(batch_of(0)[0], 9)), 3, 0), expected)


def test_outputs_that_are_not_finite():
    with pytest.raises(ModelError, match="not finite"):
        ctc_outputs([torch.full((3, 4), nan)], 3)
    with pytest.raises(ModelError, match="not finite"):
        ctc_outputs_of_logits(torch.full((1, 3, 4), inf), torch.tensor([3]))


def test_another_number_of_utterances():
    with pytest.raises(ModelError, match="and CTC outputs of 1"):
        scorer(random_log_probs(3, 2, 0)).start(2)
