"""Oracles, preferences and verdicts, on lists made by hand."""

from math import inf

import numpy as np

from kikitori.scoring.errors.breakdown import scored_rows
from kikitori.scoring.errors.search import Preference, ScoreErrors, Scores, list_errors, score_errors
from kikitori.scoring.metrics import word_errors
from kikitori.scoring.report import Prediction
from kikitori.scoring.tuning.scales import read_lists
from kikitori.types import Hypothesis, Utterance


def hypothesis(text, **shares):
    return Hypothesis((), text, 0.0, scores=shares)


def rows_of(*lists):
    predictions = [
        Prediction(
            Utterance("a.wav", 1.0, said, language="en"), nbest[0].text if nbest else "", 0.1, nbest=tuple(nbest)
        )
        for said, nbest in lists
    ]
    return scored_rows({"a": predictions})


def test_reordering():
    found = list_errors(
        rows_of(
            ("the crow", [hypothesis("the crow", ctc=-1.0, lm=-1.0), hypothesis("crow", ctc=-2.0, lm=-2.0)]),
            ("the crow", [hypothesis("home", ctc=-1.0, lm=-9.0), hypothesis("The crow.", ctc=-2.0, lm=-1.0)]),
            ("the crow", [hypothesis(text, ctc=-1.0) for text in ("fly home", "fly", "the", "now", "home")]),
            ("yes", []),
        )
    )
    assert (found.longest, found.hypotheses, found.words) == (5, 2.5, 7)
    assert found.oracle == {1: 0 + 2 + 2 + 1, 2: 0 + 0 + 2 + 1, 5: 0 + 0 + 1 + 1}
    assert (found.right, found.below, found.missing, found.improvable) == (1, 1, 2, 2)
    assert found.preferences == (Preference("ctc", 0, 1), Preference("lm", 1, 0))


def test_the_oracle_of_all_is_that_of_tuning():
    generator = np.random.default_rng(0)
    words = ["the", "crow", "fly", "home"]

    def text():
        return " ".join(generator.choice(words, generator.integers(1, 6)))

    rows = rows_of(*((text(), [hypothesis(text(), ctc=-1.0) for _ in range(60)]) for _ in range(10)))
    found, lists = list_errors(rows), read_lists({"a": [row.prediction for row in rows]}, ["ctc"])
    assert [*found.oracle] == [1, 2, 5, 10, 20, 50, 60]
    assert (found.oracle[1], found.oracle[60]) == (lists.first, lists.oracle)
    for size, errors in found.oracle.items():
        said = [(" ".join(row.reference), row.prediction.nbest[:size]) for row in rows]
        assert errors == sum(min(word_errors(ref, each.text).errors for each in nbest) for ref, nbest in said)


def test_verdicts():
    wrong = [hypothesis("crow")]
    rows = rows_of(("the", [hypothesis("the")]), *[("the", wrong)] * 5)
    scores = [
        Scores(-9.0, -1.0),  # it was found, in whatever segmentation
        Scores(-1.0, -2.0),
        Scores(-4.0, -2.0),
        Scores(-3.0, -2.0),
        Scores(-1.0, -1.0001),  # equal but for arithmetic
        Scores(-inf, -2.0),
    ]
    found = score_errors(rows, scores)
    assert (found.found, found.search, found.scores, found.impossible) == (1, 1, 3, 1)
    assert round(found.margin, 3) == 1.0
    assert score_errors(rows[:1], scores[:1]) == ScoreErrors(1, 0, 0, 0, 0.0)
