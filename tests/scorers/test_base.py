"""Scorers against scoring each hypothesis from scratch."""

from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RwkvConfig, RwkvForCausalLM

from kikitori.errors import ModelError
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.prior import PriorScorer, length_scorer
from tests.tiny import tiny_gpt2, tiny_llm

BOS, EOS, LABELS = 1, 2, 12
LLMS = {family: tiny_llm(family, 30).double() for family in ("gpt_neox", "qwen3", "llama")}


def from_scratch(llm, labels):
    """Log-probabilities behind BOS and each label, (labels + 1, vocab)."""
    ids = torch.tensor([[BOS, *labels]])
    with torch.inference_mode():
        return project(llm, forward(llm, embed(llm, ids), torch.tensor([ids.shape[1]])))[0].log_softmax(-1)


def lm(family="llama"):
    return LMScorer(LLMS[family], LABELS, bos_id=BOS, eos_id=EOS)


def table(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=LABELS))


def check(llm, scorer, state, hypotheses):
    found = scorer.log_probs(state, torch.arange(len(hypotheses)))
    for labels, row in zip(hypotheses, found, strict=True):
        expected = from_scratch(llm, labels)[-1]
        assert row[:-1].tolist() == pytest.approx(expected[:LABELS].tolist(), abs=1e-9)
        assert float(row[-1]) == pytest.approx(float(expected[EOS]), abs=1e-9)


step_of_a_search = st.lists(
    st.tuples(st.integers(0, 99), st.lists(st.integers(0, LABELS - 1), max_size=4)), min_size=1, max_size=5
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*LLMS]), st.integers(1, 3), st.lists(step_of_a_search, max_size=5))
def test_any_forks_orders_and_lengths_are_scored_as_from_scratch(family, batch, steps):
    llm, scorer = LLMS[family], lm(family)
    states = [(scorer.start(batch), [()] * batch)]
    with torch.inference_mode():
        for step in steps:
            state, hypotheses = states[step[0][0] % len(states)]  # also an older one: states stay as they were
            rows = [row % len(hypotheses) for row, _ in step]
            lengths = torch.tensor([len(labels) for _, labels in step])
            labels = torch.zeros(len(step), max(int(lengths.max()), 1), dtype=torch.long)
            for place, (_, more) in enumerate(step):
                labels[place, : len(more)] = torch.tensor(more, dtype=torch.long)
            extended, given_scores = scorer.extend(state, torch.tensor(rows), labels, lengths)
            after = [(*hypotheses[row], *more) for row, (_, more) in zip(rows, step, strict=True)]
            for place, (row, (_, more)) in enumerate(zip(rows, step, strict=True)):
                expected = from_scratch(llm, after[place])[range(len(hypotheses[row]), len(after[place])), list(more)]
                assert given_scores[place, : len(more)].tolist() == pytest.approx(expected.tolist(), abs=1e-9)
                assert given_scores[place, len(more) :].eq(0).all()
            states.append((extended, after))
        for state, hypotheses in states:
            check(llm, scorer, state, hypotheses)


def test_only_rows_that_grow_are_computed(monkeypatch):
    calls = []
    from kikitori.model.decoder import tree as label_tree

    real = label_tree.step
    monkeypatch.setattr(label_tree, "step", lambda own, ids, *rest: calls.append(ids.tolist()) or real(own, ids, *rest))
    scorer = lm()
    state = scorer.start(3)
    rows, labels = torch.tensor([2, 0, 0]), torch.tensor([[3], [4], [5]])
    state, _ = scorer.extend(state, rows, labels, torch.tensor([0, 1, 0]))
    state, given_scores = scorer.extend(state, rows, labels, torch.tensor([0, 0, 0]))
    assert calls == [[[4]]]
    assert given_scores.tolist() == [[0.0]] * 3
    assert state.counts.tolist() == [1, 1, 1]
    nothing, _ = scorer.extend(state, torch.zeros(0, dtype=torch.long), labels[:0], rows[:0])
    assert scorer.log_probs(nothing, rows[:0]).shape == (0, LABELS + 1)


def test_the_tree_outgrows_its_first_room():
    scorer, llm = lm(), LLMS["llama"]
    state, hypotheses = scorer.start(4), [()] * 4
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        for _ in range(40):
            labels = generator.integers(0, LABELS, 4).tolist()
            state, _ = scorer.extend(state, torch.arange(4), torch.tensor(labels)[:, None], torch.ones(4).long())
            hypotheses = [(*before, label) for before, label in zip(hypotheses, labels, strict=True)]
        check(llm, scorer, state, hypotheses)


def test_an_llm_without_positions_left():
    llm = tiny_gpt2(30, max_positions=4)
    scorer = LMScorer(llm, LABELS, bos_id=BOS, eos_id=EOS)
    assert scorer.max_labels == 3
    state, rows, one = scorer.start(1), torch.tensor([0]), torch.tensor([1])
    for _ in range(3):
        assert scorer.log_probs(state, rows).isfinite().all()
        state, given_scores = scorer.extend(state, rows, torch.tensor([[5]]), one)
        assert given_scores.isfinite().all()
    left = scorer.log_probs(state, rows)[0]
    assert left[:-1].eq(-inf).all()
    assert left[-1].isfinite()
    for _ in range(2):
        state, given_scores = scorer.extend(state, rows, torch.tensor([[5]]), one)
        assert given_scores.tolist() == [[-inf]]
        assert scorer.log_probs(state, rows).eq(-inf).all()


def test_an_llm_that_cannot_go_label_by_label():
    llm = RwkvForCausalLM(RwkvConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16))
    with pytest.raises(ModelError, match="cannot go label by label"):
        LMScorer(llm, LABELS, bos_id=BOS, eos_id=EOS)


def test_a_prior_and_a_length():
    prior = table().float()
    for scorer, values in ((PriorScorer(prior), prior), (length_scorer(LABELS), torch.ones(LABELS))):
        state = scorer.start(2)
        assert scorer.log_probs(state, torch.tensor([1, 0, 1])).tolist() == [[*values.tolist(), 0.0]] * 3
        labels = torch.tensor([[3, 4], [5, 0]])
        state, given_scores = scorer.extend(state, torch.tensor([0, 0]), labels, torch.tensor([2, 1]))
        expected = [[float(values[3]), float(values[4])], [float(values[5]), 0.0]]
        assert given_scores.tolist() == expected
    assert PriorScorer(prior).name == "prior"
    assert length_scorer(3).name == "length"


def test_a_sum_keeps_the_shares_before_scaling():
    total = WeightedSum([(lm(), 0.5), (PriorScorer(table()), -0.25), (length_scorer(LABELS), 2.0)])
    assert total.names == ("lm", "prior", "length")
    state, rows = total.start(1), torch.tensor([0])
    with torch.inference_mode():
        state, first = total.extend(state, rows, torch.tensor([[3, 4]]), torch.tensor([2]))
        state, second = total.extend(state, torch.tensor([0, 0]), torch.tensor([[7], [0]]), torch.tensor([1, 0]))
        shares = total.scores(state, torch.tensor([0, 1]))
    for labels, row in zip(((3, 4, 7), (3, 4)), shares, strict=True):
        scores = from_scratch(LLMS["llama"], labels)
        llm = sum(float(scores[place, label]) for place, label in enumerate((*labels, EOS)))
        prior = float(table()[list(labels)].sum())
        assert row.tolist() == pytest.approx([llm, prior, len(labels)], abs=1e-9)
        assert float(total.total(row)) == pytest.approx(0.5 * llm - 0.25 * prior + 2 * len(labels), abs=1e-9)
    end = total.log_probs(state, torch.tensor([0]))[0, -1]
    assert float(first.sum() + second[0].sum() + end) == pytest.approx(float(total.total(shares[0])), abs=1e-9)


@pytest.mark.parametrize("value", [inf, -inf, nan])
def test_what_is_infinite_counts_for_nothing_at_scale_0_and_is_impossible_otherwise(value):
    broken = table()
    broken[3] = value
    rows = torch.tensor([0])
    for scale, expected in ((0.0, 0.0), (0.5, -inf), (-0.5, -inf)):
        total = WeightedSum([(PriorScorer(broken), scale), (length_scorer(LABELS), 0.0)])
        state = total.start(1)
        assert float(total.log_probs(state, rows)[0, 3]) == expected
        state, given_scores = total.extend(state, rows, torch.tensor([[3]]), torch.tensor([1]))
        assert float(given_scores) == expected
        assert float(total.total(total.scores(state, rows))) == expected
