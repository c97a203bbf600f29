from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kikitori.errors import ConfigError, ModelError
from kikitori.scorers.base import weighted
from kikitori.scorers.language_model import LanguageModel, LMSequenceScorer, language_model
from kikitori.scorers.options import LMOptions, ScorerOptions, with_scales
from kikitori.scorers.prior import save_prior
from kikitori.search.options import CTCBeamSearch, RescoringSearch
from kikitori.search.rescore import check_rescoring, prior_scorer, rescored, with_scores
from kikitori.text.units import TokenizerUnits, vocabulary_fingerprint
from kikitori.types import Hypothesis
from tests.tiny import TEXTS, tiny_bpe, tiny_llm, tiny_units

SHARES = st.floats(-100, 0) | st.just(-inf)


def lm_over(units: TokenizerUnits) -> LanguageModel:
    return language_model(tiny_llm("qwen2", units.size), units, LMOptions("here"))


def nbest_of(texts: list[str], units: TokenizerUnits) -> tuple[Hypothesis, ...]:
    return tuple(
        Hypothesis(tuple(units.encode(text)), text, -float(place), scores={"ctc": -float(place)})
        for place, text in enumerate(texts)
    )


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=8))
def test_scales_of_zero_keep_the_order(shares):
    nbest = [Hypothesis((i,), str(i), 0.0, scores={"ctc": c, "lm": x}) for i, (c, x) in enumerate(shares)]
    found = rescored(nbest, {"ctc": 0.0, "lm": 0.0, "length": 0.0, "absent": 0.0})
    assert [hypothesis.text for hypothesis in found] == [hypothesis.text for hypothesis in nbest]
    assert {hypothesis.score for hypothesis in found} == {0.0}


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=8), st.floats(-2, 2), st.floats(-2, 2))
def test_order_is_that_of_the_weighted_sums_and_stable(shares, ctc, lm):
    nbest = [Hypothesis((i,), str(i), 0.0, scores={"ctc": c, "lm": x}) for i, (c, x) in enumerate(shares)]
    found = rescored(nbest, {"ctc": ctc, "lm": lm})
    for before, after in pairwise(found):
        assert before.score >= after.score
        assert before.score > after.score or int(before.text) < int(after.text)
    assert all(hypothesis.score == weighted(hypothesis.scores, {"ctc": ctc, "lm": lm}) for hypothesis in found)
    assert {h.text: (h.scores["ctc"], h.scores["lm"]) for h in found} == {str(i): s for i, s in enumerate(shares)}


def test_zero_times_infinity_is_zero_and_other_infinities_are_impossible():
    assert weighted({"ctc": -1.0, "lm": -inf}, {"ctc": 1.0, "lm": 0.0}) == -1.0
    assert weighted({"ctc": -1.0, "lm": -inf}, {"ctc": 1.0, "lm": 0.5}) == -inf
    assert weighted({"ctc": -1.0, "lm": -inf}, {"lm": -0.5, "ctc": 1.0}) == -inf
    assert weighted({"ctc": -1.0, "lm": nan}, {"lm": 0.5, "ctc": 1.0}) == -inf


def test_length_counts_labels():
    nbest = [Hypothesis((1,), "a", 0.0, scores={"ctc": -1.0}), Hypothesis((1, 2, 3), "abc", 0.0, scores={"ctc": -2.0})]
    best, other = rescored(nbest, {"ctc": 1.0, "length": 1.0})
    assert (best.text, best.score, other.score) == ("abc", 1.0, 0.0)
    assert best.scores == {"ctc": -2.0, "length": 3.0}


def test_a_scale_without_a_share():
    with pytest.raises(ConfigError, match=r"scorers.lm: the hypotheses have no score of that name \(theirs: ctc\)"):
        rescored([Hypothesis((1,), "a", 0.0, scores={"ctc": -1.0})], {"lm": 1.0})


def test_ctc_counts_once_unless_said_otherwise():
    assert RescoringSearch().scales == {"ctc": 1.0}
    assert RescoringSearch(scorers=with_scales({}, {"ctc": 0.5, "lm": 0.2})).scales == {"ctc": 0.5, "lm": 0.2}
    assert RescoringSearch().first == CTCBeamSearch(beam=64, nbest=64)


def lm(path="x", **settings):
    return ScorerOptions(path=path, **settings)


def prior(**settings):
    return ScorerOptions(path="p", prior=True, **settings)


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ({"lm": lm()}, r"scorers.lm: it has no scale; set decoding.scorers.lm.scale"),
        ({"ctc": lm(scale=1.0)}, r"scorers.ctc: the name is taken"),
        ({"speech_llm": ScorerOptions(1.0)}, r"scorers.speech_llm: no such scorer \(there are ctc, length, hotwords\)"),
        (
            {"lm": lm(scale=1.0), "ml": ScorerOptions(1.0)},
            r"scorers.ml: no such scorer \(there are ctc, length, hotwords, lm\)",
        ),
        ({"prior": prior()}, r"scorers.prior: it has no scale; set decoding.scorers.prior.scale"),
        ({"ilm": prior(scale=1.0)}, r"scorers.ilm: the name is taken"),
        ({"p": prior(scale=1.0, lm="lm")}, r"scorers.p.lm: 'lm' is no language model"),
        (
            {"p": prior(scale=1.0, lm="lm"), "lm": lm("x.arpa", scale=1.0)},
            r"scorers.p.lm: 'lm' is no language model with units",
        ),
    ],
)
def test_names_must_fit(scorers, message):
    with pytest.raises(ConfigError, match=message):
        check_rescoring(RescoringSearch(scorers=scorers))


def test_priors_over_the_recognisers_units_and_over_those_of_a_language_model(tmp_path):
    own, other = tiny_units(), tiny_bpe()
    other.save(tmp_path / "lm")
    lms = {"lm": ScorerOptions(path=str(tmp_path / "lm"), text_form="en_plain")}
    values = {units.size: torch.linspace(-5, -1, units.size) for units in (own, other)}
    for units in (own, other):
        file = tmp_path / f"{units.size}.safetensors"
        save_prior(file, values[units.size], vocabulary=vocabulary_fingerprint(units))
    nbests = [nbest_of(["The fox!", ""], own), ()]
    for options, units in (
        (prior(), own),
        (prior(lm="lm"), other),
    ):
        options = replace(options, path=f"{tmp_path / str(units.size)}.safetensors")
        (judged, nothing) = with_scores(nbests, prior_scorer("p", options, lms, own))
        expected = float(values[units.size][units.encode("the fox")].double().sum())
        assert [hypothesis.scores["p"] for hypothesis in judged] == pytest.approx([expected, 0.0])
        assert nothing == ()
    with pytest.raises(ModelError, match=r"a prior of \d+ labels"):
        prior_scorer("p", ScorerOptions(path=options.path), lms, own)
    with pytest.raises(ConfigError, match=r"decoding.scorers.p: whose labels .*--model"):
        prior_scorer("p", ScorerOptions(path=options.path), lms, None)


def test_known_scorers_take_scales():
    check_rescoring(
        RescoringSearch(scorers=with_scales({}, {"speech_llm": 1.0, "length": 0.1, "ctc": 0.0})), ["speech_llm"]
    )


def test_equal_units_judge_the_labels_as_they_are():
    units = tiny_units("sentencepiece")
    lm, text = lm_over(units), TEXTS[0]
    canonical = units.encode(text)
    spelt = [units.special_id(piece) for piece in ["▁", *units.normalize(text).replace(" ", "▁")]]
    labels = tuple(label for label in spelt if label is not None)
    nbest = [Hypothesis(labels, units.decode(labels), 0.0), Hypothesis(tuple(canonical), text, 0.0)]
    (own,) = with_scores([nbest], LMSequenceScorer("lm", lm, units))
    assert [h.scores["lm"] for h in own] == pytest.approx(lm.log_probs([[labels, canonical]]).scores[0])
    (read,) = with_scores([nbest], LMSequenceScorer("lm", lm, None))
    assert [h.scores["lm"] for h in read] == pytest.approx(
        lm.log_probs([[units.encode(nbest[0].text), canonical]]).scores[0]
    )


def test_units_with_more_labels_judge_the_labels_as_they_are():
    units, more = tiny_units("sentencepiece"), tiny_units("sentencepiece")
    more.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]", "[MORE]"]})
    lm = lm_over(TokenizerUnits(more.tokenizer))
    assert lm.units.size == units.size + 1
    labels = [5, 6, 5]
    (found,) = with_scores([[Hypothesis(tuple(labels), "other", 0.0)]], LMSequenceScorer("lm", lm, units))
    assert found[0].scores["lm"] == pytest.approx(lm.log_probs([[labels]]).scores[0][0])


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_other_units_judge_the_text(kind):
    units, own = tiny_bpe(kind), tiny_units()
    lm = lm_over(units)
    nbest = nbest_of([TEXTS[0], "", TEXTS[1], TEXTS[0]], own)
    (found,) = with_scores([nbest], LMSequenceScorer("lm", lm, own))
    expected = [lm.log_probs([[units.encode(h.text)]]).scores[0][0] for h in nbest]
    assert [h.scores["lm"] for h in found] == pytest.approx(expected, abs=1e-4)
    counts = lm.log_probs([[units.encode(h.text) for h in nbest]])
    assert counts.nodes < counts.labels
    assert all(h.scores["ctc"] == old.scores["ctc"] for h, old in zip(found, nbest, strict=True))


class Given:
    """A scorer of given scores."""

    name = "lm"

    def __init__(self, scores):
        self._scores = scores

    def scores(self, nbests):
        assert len(nbests) == len(self._scores)
        return self._scores


def test_what_is_impossible_throughout_says_nothing():
    nbest = (
        Hypothesis((1,), "one", -1.0, scores={"ctc": -1.0}),
        Hypothesis((2,), "two", -2.0, scores={"ctc": -0.5}),
    )
    none, one = with_scores([nbest, nbest], Given([[-inf, -inf], [-3.0, -inf]]))
    assert [each.scores["lm"] for each in (*none, *one)] == [0.0, 0.0, -3.0, -inf]
    scales = {"ctc": 1.0, "lm": 0.1}
    assert [(each.text, each.score) for each in rescored(none, scales)] == [("two", -0.5), ("one", -1.0)]
    assert [each.text for each in rescored(one, scales)] == ["one", "two"]
