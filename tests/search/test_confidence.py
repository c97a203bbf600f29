from math import inf, log

import pytest

from kikitori.scorers.options import ScorerOptions
from kikitori.search.confidence import confidence
from kikitori.search.options import BeamSearch, CTCGreedySearch, GreedySearch, JointSearch, LexiconSearch
from kikitori.types import Hypothesis


def found(score, labels=3):
    return Hypothesis(labels=(5,) * labels, text="", score=score)


def test_by_hand():
    # three labels and the end, each with probability 1/2
    assert confidence(found(4 * log(0.5)), GreedySearch()) == pytest.approx(log(0.5))
    assert confidence(found(-6.0), CTCGreedySearch()) == -1.5
    assert confidence(found(6.0), LexiconSearch(scorers={"prior": ScorerOptions(scale=-0.7)})) == 1.5
    assert confidence(found(-0.2, labels=0), CTCGreedySearch()) == -0.2
    assert confidence(found(-inf), GreedySearch()) == -inf


def test_scores_that_are_divided_already():
    assert confidence(found(-1.5), BeamSearch()) == -1.5  # the exponent is 1 by default
    assert confidence(found(-3.0), BeamSearch(length_exponent=0.5)) == pytest.approx(-6.0 / 4)
    assert confidence(found(-6.0), BeamSearch(length_exponent=0.0)) == -1.5
    assert confidence(found(-6.0), JointSearch()) == -1.5


def test_twice_as_much_of_the_same_is_as_sure():
    # with the end counted, 3 and 7 labels are 4 and 8
    assert confidence(found(-2.0, labels=3), CTCGreedySearch()) == confidence(found(-4.0, labels=7), CTCGreedySearch())
