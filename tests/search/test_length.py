from dataclasses import replace

import pytest

from kikitori.search.length import SLACK, label_limit, max_labels, nue_asr_max_labels, overrun
from kikitori.search.windows import most_said
from kikitori.types import TrainedOn


@pytest.mark.parametrize(
    ("seconds", "labels_per_second", "expected"),
    [(0.0, 10.0, 20), (1.0, 10.0, 32), (1.0, 10.1, 33), (0.01, 4.0, 21), (30.0, 25.0, 920), (2.5, 4.0, 32)],
)
def test_formula(seconds, labels_per_second, expected):
    assert max_labels(seconds, labels_per_second) == expected


def test_never_below_the_slack_and_never_falling():
    limits = [max_labels(seconds / 10, 12.5) for seconds in range(300)]
    assert limits[0] == SLACK
    assert limits == sorted(limits)
    assert all(limit >= 12.5 * seconds / 10 for seconds, limit in enumerate(limits))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 20), (0.1, 20), (0.125, 21), (0.2, 21), (1.0, 24), (2.37, 29), (2.38, 30), (16.0, 84)],
)
def test_rule_of_the_release(seconds, expected):
    assert nue_asr_max_labels(seconds) == int(4 * seconds + 20 + 0.5) == expected


def test_the_model_says_which_rule():
    assert label_limit(2.0, TrainedOn(10.0, 30.0)) == max_labels(2.0, 10.0) == 44
    assert label_limit(2.0, TrainedOn(10.0, 30.0, length_rule="nue_asr")) == 28


def test_what_does_not_fit_is_said_in_seconds_and_positions():
    assert overrun(1.0, 40, 60, 100) is None
    assert overrun(1e6, 10**9, 10**9, None) is None
    assert overrun(12.34, 41, 60, 100) == (
        "12.3 s of speech take 41 LLM positions with the prompt, and up to 60 labels follow; the LLM has 100 positions"
    )


def test_behind_a_short_window_no_more_than_can_be_said():
    short = TrainedOn(15.0, 30.0, length_rule="speech_window")
    assert label_limit(2.0, short) == most_said(2.0) + 1 == 23  # one more tells that it goes on
    assert label_limit(29.0, replace(short, labels_per_second=5.0)) == 150
