"""Beam search against all label sequences."""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.base import WeightedSum
from kikitori.scorers.ctc.prefix import CTCPrefixScorer, ctc_outputs
from kikitori.scorers.prior import length_scorer
from kikitori.search.autoregressive.beam import PartialScorer, beam_search
from kikitori.search.autoregressive.recombination import Recombination
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch
from tests.search.ctc.test_beam import every_path, random_log_probs
from tests.search.flat import flat


class Table:
    """Log-probabilities drawn for each hypothesis, the same whatever the batch."""

    name = "llm"

    def __init__(self, num_labels, seeds):
        self.num_labels, self.seeds = num_labels, seeds

    def following(self, utterance, labels):
        random = np.random.default_rng([self.seeds[utterance], len(labels), *labels])
        return torch.from_numpy(random.normal(size=self.num_labels + 1) * 2).log_softmax(-1)

    def total(self, utterance, labels):
        places = [*labels, self.num_labels]
        return sum(float(self.following(utterance, labels[:at])[label]) for at, label in enumerate(places))

    def start(self, batch):
        return [(row, ()) for row in range(batch)]

    def log_probs(self, state, rows):
        return torch.stack([self.following(*state[row]) for row in rows.tolist()])

    def extend(self, state, rows, labels, lengths):
        assert lengths.eq(1).all()
        pairs = [(state[row], label) for row, (label,) in zip(rows.tolist(), labels.tolist(), strict=True)]
        given_scores = torch.tensor([[float(self.following(*old)[label])] for old, label in pairs])
        return [(old[0], (*old[1], label)) for old, label in pairs], given_scores


class Markov(Table):
    """The same where a label depends on so many before it, and on how many these are."""

    def __init__(self, num_labels, seeds, order):
        super().__init__(num_labels, seeds)
        self.order = order

    def following(self, utterance, labels):
        random = np.random.default_rng([self.seeds[utterance], len(labels), *labels[-self.order :]])
        return torch.from_numpy(random.normal(size=self.num_labels + 1) * 2).log_softmax(-1)


def letters(labels):
    """A text in which labels 0 and 1 are the same letter, 2 is nothing and the others are themselves."""
    return tuple(label // 2 for label in labels if label != 2)


def found(tables, *, most=4, least=0, partial=None, length_scale=0.0, variants=None, context=None, **options):
    scorer = WeightedSum([(tables, 1.0), (length_scorer(tables.num_labels), length_scale)])
    limits = [most] * len(tables.seeds) if isinstance(most, int) else most
    same = None if variants is None else Recombination(variants, letters, letters)
    settings = {"partial": partial, "most_gain": length_scale, "recombination": same}
    search = flat(BeamSearch, **options)
    search = replace(search, pruning=replace(search.pruning, context=context))
    return beam_search(scorer, search, Limits(limits, least), **settings)


def every_sequence(num_labels, most, least=0):
    return [labels for size in range(least, most + 1) for labels in product(range(num_labels), repeat=size)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 2),
    st.lists(st.integers(0, 9999), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.7, -0.3]),
    st.sampled_from([1, 3, 1000]),
)
def test_a_full_beam_finds_the_best_sequences(num_labels, most, least, seeds, exponent, length_scale, nbest):
    tables = Table(num_labels, seeds)
    results = found(
        tables, most=most, least=least, beam=1000, nbest=nbest, length_exponent=exponent, length_scale=length_scale
    )
    for row, hypotheses in enumerate(results):
        every = [
            ((tables.total(row, labels) + length_scale * len(labels)) / (len(labels) + 1) ** exponent, labels)
            for labels in every_sequence(num_labels, most, min(least, most))
        ]
        expected = sorted(every, key=lambda pair: (-pair[0], pair[1]))[:nbest]
        assert [each.labels for each in hypotheses] == [labels for _, labels in expected]
        assert [each.score for each in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-9)
        for each in hypotheses:
            assert each.scores == pytest.approx(
                {"llm": tables.total(row, each.labels), "length": len(each.labels)}, abs=1e-6
            )


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 9999),
    st.sampled_from([0.0, 1.0]),
    st.integers(1, 3),
    st.sampled_from([1, 3, 1000]),
)
def test_with_recombination_a_full_beam_finds_the_best_of_each_text(num_labels, most, seed, exponent, variants, nbest):
    tables = Table(num_labels, [seed])
    options = {"beam": 1000, "length_exponent": exponent, "most": most}
    ((*every,),) = found(tables, nbest=1000, **options)
    texts = Counter()
    expected = []
    for each in every:
        texts[text := letters(each.labels)] += 1
        if texts[text] <= variants:
            expected.append(each.labels)
    (hypotheses,) = found(tables, nbest=nbest, variants=variants, **options)
    assert [each.labels for each in hypotheses] == expected[:nbest]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4))
def test_with_recombination_a_narrow_beam_holds_different_texts(seed, beam):
    tables = Table(6, [seed])
    options = {"beam": beam, "nbest": beam, "length_exponent": 0.0, "most": 5}
    (plain,), (apart,) = found(tables, **options), found(tables, variants=1, **options)
    texts = [letters(each.labels) for each in apart]
    assert len({*texts}) == len(texts) >= len({letters(each.labels) for each in plain})
    for each in apart:
        assert each.score == pytest.approx(tables.total(0, each.labels), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 5), st.integers(0, 9999), st.integers(1, 2))
def test_merged_by_all_that_labels_depend_on_a_beam_of_these_contexts_finds_the_best(num_labels, most, seed, order):
    tables = Markov(num_labels, [seed], order)
    options = {"most": most, "length_exponent": 0.0}
    ((best, *_),) = found(tables, beam=1000, nbest=1, **options)
    both = 2 * num_labels**order  # a place for each context, and for its end
    ((merged, *_),) = found(tables, beam=both, nbest=1, context=order, **options)
    assert (merged.labels, merged.score) == (best.labels, pytest.approx(best.score, abs=1e-9))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 2), st.sampled_from([None, 1]))
def test_of_hypotheses_with_the_same_last_labels_the_best_grows(seed, context, variants):
    tables = Table(3, [seed])
    options = {"most": 4, "length_exponent": 0.0, "variants": variants, "beam": 1000, "nbest": 1000}
    (hypotheses,) = found(tables, context=context, **options)
    grown = {each.labels[:-1]: each for each in hypotheses if each.labels}
    for size in range(4):
        last = [labels[-context:] for labels in grown if len(labels) == size]
        assert len({*last}) == len(last)
    assert found(tables, context=4, **options) == found(tables, **options)


def test_what_is_far_from_the_best_is_not_sought():
    options = {"beam": 1, "nbest": 2, "most": 40, "length_exponent": 0.0}
    for seed in range(20):
        (far,), (near,) = found(Table(3, [seed]), **options), found(Table(3, [seed]), score_beam=2.0, **options)
        assert near[0].labels == far[0].labels
        assert all(each.score >= near[0].score - 2.0 for each in near)
        assert [each.labels for each in far if each.score >= far[0].score - 2.0] == [each.labels for each in near]


def with_ctc(tables, seeds, frames, **options):
    heard = [random_log_probs(frames, tables.num_labels, seed) for seed in seeds]
    scale = options.pop("scale")
    limits = {key: options.pop(key) for key in ("labels", "proposed") if key in options}
    scorer = CTCPrefixScorer(ctc_outputs(heard, tables.num_labels, likely=8))
    return heard, lambda: PartialScorer(scorer, scale, **limits), options


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.integers(0, 9999), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 1.0]),
)
def test_with_a_partial_scorer_a_full_beam_finds_the_best_sum(num_labels, frames, seeds, scale, llm_scale):
    tables = Table(num_labels, seeds)
    heard, partial, _ = with_ctc(tables, seeds, frames, scale=scale)
    scorer = WeightedSum([(tables, llm_scale)])
    options = BeamSearch(beam=1000, nbest=1000, length_exponent=0.0)
    results = beam_search(scorer, options, Limits([frames] * len(seeds)), partial=partial())
    for row, hypotheses in enumerate(results):
        ctc = every_path(heard[row], "sum")
        sequences = every_sequence(num_labels, frames)
        expected = {
            labels: llm_scale * tables.total(row, labels) + (scale * ctc.get(labels, -inf) if scale else 0.0)
            for labels in sequences
            if scale == 0.0 or labels in ctc
        }
        assert {each.labels: each.score for each in hypotheses} == pytest.approx(expected, abs=1e-6)
        best = max(expected.values())
        assert hypotheses[0].score == pytest.approx(best, abs=1e-6)
        for each in hypotheses:
            llm, given_by_ctc = each.scores["llm"], each.scores["ctc"]
            assert llm == pytest.approx(tables.total(row, each.labels), abs=1e-6)
            assert given_by_ctc == pytest.approx(ctc.get(each.labels, -inf), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9999), min_size=2, max_size=5, unique=True),
    st.integers(1, 6),
    st.sampled_from([None, 1.5]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([None, 0.4]),
)
def test_utterances_do_not_meet(seeds, beam, score_beam, exponent, scale):
    options = {"beam": beam, "nbest": 3, "score_beam": score_beam, "length_exponent": exponent}

    def run(order):
        tables = Table(6, [seeds[row] for row in order])
        partial = None
        if scale is not None:
            _, make, _ = with_ctc(tables, tables.seeds, 7, scale=scale, labels=3, proposed=2)
            partial = make()
        return found(tables, most=[1 + seeds[row] % 6 for row in order], partial=partial, **options)

    together = run(range(len(seeds)))
    for row in range(len(seeds)):
        assert run([row])[0] == together[row]
    backwards = run([*reversed(range(len(seeds)))])
    assert backwards[::-1] == together
    for hypotheses in together:
        scores = [each.score for each in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({each.labels for each in hypotheses}) == len(hypotheses)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_stopping_early_changes_nothing(seed, beam, nbest, exponent):
    tables = Table(4, [seed])
    options = {"beam": beam, "nbest": nbest, "length_exponent": exponent, "most": 8}
    ((*hypotheses,),) = found(tables, **options)
    scorer = WeightedSum([(tables, 1.0)])
    # With the promise of an endless gain it never stops early.
    choice = BeamSearch(beam=beam, nbest=nbest, length_exponent=exponent)
    (late,) = beam_search(scorer, choice, Limits([8]), most_gain=1e9)
    assert [(each.labels, each.score) for each in late] == [(each.labels, each.score) for each in hypotheses]
    assert late[0].llm_passes >= hypotheses[0].llm_passes


def test_a_beam_wider_than_the_vocabulary():
    assert len(found(Table(2, [3]), beam=50, nbest=50, most=2)[0]) == 1 + 2 + 4


def test_what_reaches_the_limit_is_told_apart():
    hypotheses = found(Table(3, [1]), beam=100, nbest=100, most=1, length_exponent=0.0)[0]
    table = Table(3, [1])
    for each in hypotheses:
        likeliest = int(table.following(0, each.labels).argmax())
        assert each.complete == (not each.labels or likeliest == 3)


def test_where_nothing_is_possible_there_is_an_empty_hypothesis():
    heard = torch.full((1, 4), -inf).index_fill(1, torch.tensor([0]), 0.0)  # the first label, surely
    partial = PartialScorer(CTCPrefixScorer(ctc_outputs([heard], 3)), 0.5)
    (hypotheses,) = found(Table(3, [1]), most=0, partial=partial)
    assert [(each.labels, each.score) for each in hypotheses] == [((), -inf)]
    assert len(hypotheses[0].scores) == 3
    assert found(Table(3, []), most=[]) == []
