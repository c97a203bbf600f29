"""Scales against brute force: every count by the plain metric, every optimum by trying all points."""

from itertools import product
from math import inf

import numpy as np
import pytest

from kikitori.errors import DataError
from kikitori.scoring.report import Prediction, build_report
from kikitori.scoring.tuning import scales as tuning
from kikitori.scoring.tuning.grids import Grid
from kikitori.scoring.tuning.scales import error_counts, plane, read_lists, tune
from kikitori.search.rescore import rescored
from kikitori.types import Hypothesis, Utterance

WORDS = ("one", "two", "three", "four", "five")
NAMES = ("ctc", "lm", "prior")
CTC = Grid(1.0, 1.0)
GRIDS = {"ctc": CTC, "lm": Grid(0.0, 1.0, 0.25), "prior": Grid(-1.0, 0.0, 0.25)}


def prediction(text, nbest, **more):
    utterance = Utterance("a.wav", 1.0, text, utt_id="a", language=more.pop("language", "en"))
    return Prediction(utterance, nbest[0].text if nbest else "", 0.1, nbest=tuple(nbest), **more)


def hypothesis(text, **shares):
    return Hypothesis(tuple(range(len(text.split()))), text, 0.0, scores=shares)


def random_sets(seed, *, infinite=0.0, names=NAMES, utterances=12):
    """Two sets in two languages, lists of one to seven hypotheses, shares on a coarse grid so that sums are equal."""
    generator = np.random.default_rng(seed)

    def text():
        return " ".join(generator.choice(WORDS, generator.integers(0, 5)))

    def shares():
        values = generator.integers(-8, 1, len(names)) / 2
        return {n: -inf if generator.random() < infinite else float(v) for n, v in zip(names, values, strict=True)}

    sets = {}
    for name, language in (("a", "en"), ("b", "de")):
        rows = []
        for _ in range(utterances // 2):
            nbest = [hypothesis(text(), **shares()) for _ in range(generator.integers(1, 8))]
            rows.append(prediction(text().upper() + ".", nbest, language=language))
        sets[name] = rows
    return sets


def plain_report(sets, scales):
    """The report of predictions that are rescored one by one."""
    chosen = {}
    for name, rows in sets.items():
        ordered = [rescored(row.nbest, scales) if row.nbest and row.nbest[0].scores else row.nbest for row in rows]
        chosen[name] = [
            Prediction(row.utterance, nbest[0].text if nbest else row.pred_text, 0.1, nbest=nbest)
            for row, nbest in zip(rows, ordered, strict=True)
        ]
    return build_report(chosen, normalizer=None, decoding="rescoring", model="m", versions={})


def plain_errors(sets, scales):
    report = plain_report(sets, scales)
    return report["substitutions"] + report["deletions"] + report["insertions"]


@pytest.mark.parametrize("infinite", [0.0, 0.2, 1.0])
def test_counts_are_those_of_the_plain_metric(infinite):
    for seed in range(4):
        sets = random_sets(seed, infinite=infinite)
        lists = read_lists(sets, NAMES)
        scales = np.random.default_rng(seed).normal(size=(30, 3)).round(1)
        scales[:5] = np.eye(5, 3)
        counts = error_counts(lists, scales)
        assert counts.tolist() == [plain_errors(sets, dict(zip(NAMES, row, strict=True))) for row in scales.tolist()]
        report = plain_report(sets, {})
        assert (lists.words, lists.utterances) == (report["reference_words"], report["scored"])
        assert lists.rate(int(counts[0])) == plain_report(sets, {"ctc": 1.0})["wer"]
        assert lists.first == plain_errors(sets, {})


def test_sums_are_those_of_a_search_to_the_last_bit():
    # 0.1 + 0.2 is more than 0.3, so the order of summing decides.
    nbest = [hypothesis("wrong", ctc=0.3, lm=0.0, prior=0.0), hypothesis("right", ctc=0.0, lm=0.1, prior=0.2)]
    sets = {"a": [prediction("right", nbest)]}
    for names in (NAMES, NAMES[::-1]):
        point = np.ones((1, 3))
        assert error_counts(read_lists(sets, names), point)[0] == plain_errors(sets, dict.fromkeys(names, 1.0))


def test_one_point_at_a_time_or_many(monkeypatch):
    lists = read_lists(random_sets(0), NAMES)
    points = np.random.default_rng(0).normal(size=(50, 3))
    together = error_counts(lists, points)
    monkeypatch.setattr(tuning, "_BLOCK", 1)
    assert error_counts(lists, points).tolist() == together.tolist()


def test_the_grid_is_searched_to_the_last_point():
    for seed in range(6):
        sets = random_sets(seed, infinite=0.05)
        lists = read_lists(sets, NAMES)
        tuned = tune(lists, GRIDS)
        every = {
            (1.0, *scales): plain_errors(sets, dict(zip(NAMES, (1.0, *scales), strict=True)))
            for scales in product(GRIDS["lm"].values, GRIDS["prior"].values)
        }
        assert {tuple(p): e for p, e in zip(tuned.points.tolist(), tuned.point_errors.tolist(), strict=True)} == every
        fewest = min(every.values())
        assert tuned.errors <= fewest
        assert tuned.errors == plain_errors(sets, tuned.scales)
        smallest = min(sum(map(abs, point)) for point, errors in every.items() if errors == fewest)
        assert tuned.errors < fewest or sum(map(abs, tuned.scales.values())) <= smallest
        assert tuned.unscaled == plain_errors(sets, {"ctc": 1.0})
        assert tuned.flat == np.mean([errors <= 1.01 * tuned.errors for errors in every.values()])
        assert tune(lists, GRIDS).scales == tuned.scales


def test_the_local_search_finds_what_lies_between():
    # Right where 0.3 < lm < 0.4, which the grid of 0.5 does not have; its best, 0.5, is wrong once.
    nbest = [hypothesis("b", ctc=-3.0, lm=0.0), hypothesis("a", ctc=-6.0, lm=10.0), hypothesis("c", ctc=-12.0, lm=25.0)]
    far = [hypothesis("b", ctc=0.0, lm=0.0), hypothesis("c", ctc=-1.0, lm=10.0)]
    lists = read_lists({"a": [prediction("a", nbest), prediction("c", far)]}, ("ctc", "lm"))
    tuned = tune(lists, {"ctc": CTC, "lm": Grid(0.0, 1.0, 0.5)})
    assert tuned.point_errors.tolist() == [2, 1, 1]
    assert tuned.errors == 0
    assert 0.3 < tuned.scales["lm"] < 0.4
    assert lists.oracle == 0


def test_of_equals_the_smallest_scales():
    nbest = [hypothesis("b", ctc=-1.0, lm=-9.0, prior=0.0), hypothesis("a", ctc=-2.0, lm=-1.0, prior=0.0)]
    lists = read_lists({"a": [prediction("a", nbest)]}, NAMES)
    tuned = tune(lists, GRIDS)
    assert tuned.scales == {"ctc": 1.0, "lm": pytest.approx(0.140625), "prior": 0.0}  # the first above 1/8
    nothing = read_lists({"a": [prediction("b", nbest)]}, NAMES)
    assert tune(nothing, GRIDS).scales == {"ctc": 1.0, "lm": 0.0, "prior": 0.0}


def test_how_flat_it_is():
    nbest = [hypothesis("b", ctc=-1.0, lm=-9.0), hypothesis("a", ctc=-2.0, lm=-1.0)]
    rows = [prediction("a", nbest)]
    tuned = tune(read_lists({"a": rows}, ("ctc", "lm")), {"ctc": CTC, "lm": Grid(0.0, 1.0, 0.25)})
    assert tuned.neighbours == {"lm": (None, 0)}
    assert tuned.flat == 0.8
    assert tuned.edges == ()
    narrow = tune(read_lists({"a": rows}, ("ctc", "lm")), {"ctc": CTC, "lm": Grid(0.0, 0.125, 0.0625)})
    assert (narrow.errors, narrow.edges) == (1, ())
    late = tune(read_lists({"a": rows}, ("ctc", "lm")), {"ctc": CTC, "lm": Grid(-1.0, 0.126, 0.563)})
    assert (late.errors, late.edges) == (0, ("lm",))
    assert late.neighbours["lm"] == (1, None)


def test_a_plane_through_the_optimum():
    sets = random_sets(1)
    lists = read_lists(sets, NAMES)
    tuned = tune(lists, GRIDS)
    errors = plane(lists, tuned, GRIDS, ["prior", "lm"])
    assert errors.shape == (5, 5)
    assert errors[1, 2] == plain_errors(sets, {"ctc": 1.0, "lm": 0.5, "prior": -0.75})
    line = plane(lists, tuned, GRIDS, ["lm"])
    assert line[1] == plain_errors(sets, tuned.scales | {"lm": 0.25})


def test_any_number_of_scales_and_lengths():
    names = ("ctc", "lm", "other", "speech_llm", "prior")
    sets = random_sets(2, names=names)
    lists = read_lists(sets, (*names, "length"))
    grids = {"ctc": CTC, "other": Grid(0.3, 0.3)} | {
        name: Grid(-1.0, 1.0, 0.5) for name in ("lm", "speech_llm", "prior", "length")
    }
    tuned = tune(lists, grids)
    assert len(tuned.points) == 5**4
    assert tuned.scales["other"] == 0.3
    assert [*tuned.scales] == [*lists.names]
    assert tuned.errors == plain_errors(sets, tuned.scales) <= tuned.point_errors.min()


def test_utterances_that_no_search_has_scored_keep_their_prediction():
    scored = [hypothesis("b", ctc=-1.0, lm=-9.0), hypothesis("a", ctc=-2.0, lm=-1.0)]
    rows = [
        prediction("a", scored),
        prediction(None, scored),  # nobody knows what was said
        prediction("a b", [], error="lost"),
        prediction("a b c", [Hypothesis((), "", 0.0)]),  # too short to be searched
        prediction("", [hypothesis("x", ctc=0.0, lm=0.0), hypothesis("x y", ctc=-9.0, lm=0.0)]),
    ]
    lists = read_lists({"a": rows}, ("ctc", "lm"))
    assert (lists.utterances, lists.words) == (4, 6)
    assert error_counts(lists, np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])).tolist() == [7, 6, 7]
    assert (lists.first, lists.oracle) == (7, 6)


def test_nothing_to_choose_from():
    lists = read_lists({"a": [prediction("", [hypothesis("x", ctc=0.0)])]}, ("ctc", "length"))
    tuned = tune(lists, {"ctc": CTC, "length": Grid(0.0, 1.0, 0.5)})
    assert (tuned.errors, tuned.scales["length"], lists.first, lists.oracle) == (1, 0.0, 1, 1)
    assert (lists.rate(1), lists.rate(0)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([prediction(None, [hypothesis("a", ctc=0.0)])], "no utterance has a reference text"),
        ([prediction("a", [], error="lost")], "no n-best list with scores"),
        ([prediction("a", [Hypothesis((), "a", 0.0)])], "no n-best list with scores"),
        ([prediction("a", [hypothesis("a", lm=0.0)])], r"a: a hypothesis has no score 'ctc' \(its scores: lm\)"),
        (
            [prediction("a", [hypothesis("a", ctc=0.0), Hypothesis((), "b", 0.0)])],
            r"a: a hypothesis has no score 'ctc' \(its scores: none\)",
        ),
    ],
)
def test_lists_that_cannot_be_tuned_on(rows, problem):
    with pytest.raises(DataError, match=problem):
        read_lists({"a": rows}, ("ctc",))
