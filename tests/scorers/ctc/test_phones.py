"""Words as a CTC head over phones hears them, against the enumeration of all paths and pronunciations."""

from collections.abc import Sequence
from itertools import product
from math import inf, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.ctc.phones import PhoneSequenceScorer, word_log_probs
from kikitori.types import Hypothesis
from tests.search.ctc.test_beam import every_path, random_log_probs

way = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)
word = st.lists(way, min_size=1, max_size=3, unique=True).map(tuple)
texts = st.lists(st.lists(word, max_size=3).map(tuple), max_size=4)
posteriors = st.builds(
    random_log_probs, st.integers(0, 6), st.just(3), st.integers(0, 9), st.sampled_from([0.5, 3, 99])
)


def enumerated(log_probs: torch.Tensor, text: Sequence[Sequence[Sequence[int]]]) -> float:
    """The sum over every choice of pronunciations, each equally probable, of all paths that write them."""
    paths = every_path(log_probs, "sum")
    choices = [*product(*text)]
    said = [paths.get(tuple(phone for way in choice for phone in way), -inf) for choice in choices]
    return float(np.logaddexp.reduce(said)) - log(len(choices))


@settings(max_examples=25, deadline=None)
@given(posteriors, texts)
def test_it_is_the_sum_over_all_pronunciations_and_paths(log_probs, texts):
    found = word_log_probs(log_probs.numpy(), texts)
    assert found == pytest.approx([enumerated(log_probs, text) for text in texts], abs=1e-9)


def test_a_long_recording_does_not_underflow():
    log_probs = np.log(np.array([[1e-9, 1.0 - 1e-9]])).repeat(2000, axis=0)
    (found,) = word_log_probs(log_probs, [[((0,),)] * 400])
    assert 400 * log(1e-9) < found < 400 * log(1e-9) + 2000 * log(2)


def test_hypotheses_are_scored_each_by_its_own_recording_and_unknown_words_are_impossible():
    log_probs = torch.stack([random_log_probs(5, 3, seed) for seed in (1, 2)])
    ways = {"a": ((0,),), "be": ((1, 2), (1,))}

    def words(hypothesis):
        return None if hypothesis.text == "1" else hypothesis.text.lower().split()

    scorer = PhoneSequenceScorer(log_probs, torch.tensor([3, 5]), words, ways)
    nbests = [[Hypothesis((), text, 0.0) for text in row] for row in (["a be", "A BE", "a who", "1"], ["", "be a"])]
    first, second = scorer.scores(nbests)
    assert first == pytest.approx([enumerated(log_probs[0, :3], [ways["a"], ways["be"]])] * 2 + [-inf] * 2)
    assert second == pytest.approx([enumerated(log_probs[1], text) for text in ([], [ways["be"], ways["a"]])])
