from itertools import pairwise
from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kikitori.errors import ConfigError, ModelError
from kikitori.scorers.language_model import LanguageModel, language_model
from kikitori.scorers.options import LMOptions, PriorOptions
from kikitori.scorers.prior import save_prior
from kikitori.search.options import CTCBeamSearch, RescoringSearch
from kikitori.search.rescore import (
    check_rescoring,
    load_label_prior,
    rescored,
    scales_of,
    weighted,
    with_lm,
    with_prior,
)
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
    with pytest.raises(ConfigError, match=r"scales.lm: the hypotheses have no share of that name \(theirs: ctc\)"):
        rescored([Hypothesis((1,), "a", 0.0, scores={"ctc": -1.0})], {"lm": 1.0})


def test_ctc_counts_once_unless_said_otherwise():
    assert scales_of(RescoringSearch()) == {"ctc": 1.0}
    assert scales_of(RescoringSearch(scales={"ctc": 0.5, "lm": 0.2})) == {"ctc": 0.5, "lm": 0.2}
    assert RescoringSearch().first == CTCBeamSearch(beam=64, nbest=64)


@pytest.mark.parametrize(
    ("lms", "scales", "message"),
    [
        ({"lm": LMOptions("x")}, {}, r"lms.lm: it has no scale; set decoding.scales.lm"),
        ({"ctc": LMOptions("x")}, {"ctc": 1.0}, r"lms.ctc: the name is taken"),
        ({}, {"speech_llm": 1.0}, r"scales.speech_llm: no such scorer \(there are ctc, length\)"),
        ({"lm": LMOptions("x")}, {"lm": 1.0, "ml": 1.0}, r"scales.ml: no such scorer \(there are ctc, length, lm\)"),
    ],
)
def test_names_must_fit(lms, scales, message):
    with pytest.raises(ConfigError, match=message):
        check_rescoring(RescoringSearch(lms=lms, scales=scales))


@pytest.mark.parametrize(
    ("lms", "priors", "scales", "message"),
    [
        ({}, {"prior": PriorOptions("p")}, {}, r"priors.prior: it has no scale; set decoding.scales.prior"),
        ({}, {"ilm": PriorOptions("p")}, {"ilm": 1.0}, r"priors.ilm: the name is taken"),
        ({"lm": LMOptions("x")}, {"lm": PriorOptions("p")}, {"lm": 1.0}, r"priors.lm: the name is taken"),
        ({}, {"prior": PriorOptions("p", "lm")}, {"prior": 1.0}, r"priors.prior.lm: 'lm' is no language model"),
        (
            {"lm": LMOptions("x.arpa")},
            {"prior": PriorOptions("p", "lm")},
            {"prior": 1.0, "lm": 1.0},
            r"priors.prior.lm: 'lm' is no language model with units",
        ),
    ],
)
def test_names_of_priors_must_fit(lms, priors, scales, message):
    with pytest.raises(ConfigError, match=message):
        check_rescoring(RescoringSearch(lms=lms, priors=priors, scales=scales))


def test_priors_over_the_recognisers_units_and_over_those_of_a_language_model(tmp_path):
    own, other = tiny_units(), tiny_bpe()
    other.save(tmp_path / "lm")
    lms = {"lm": LMOptions(str(tmp_path / "lm"), "en_plain")}
    values = {units.size: torch.linspace(-5, -1, units.size) for units in (own, other)}
    for units in (own, other):
        file = tmp_path / f"{units.size}.safetensors"
        save_prior(file, values[units.size], vocabulary=vocabulary_fingerprint(units))
    nbests = [nbest_of(["The fox!", ""], own), ()]
    for options, units in (
        (PriorOptions(f"{tmp_path / str(own.size)}.safetensors"), own),
        (PriorOptions(f"{tmp_path / str(other.size)}.safetensors", "lm"), other),
    ):
        prior = load_label_prior(options, lms, own)
        (judged, nothing) = with_prior(nbests, "p", prior, own)
        expected = float(values[units.size][units.encode("the fox")].double().sum())
        assert [hypothesis.scores["p"] for hypothesis in judged] == pytest.approx([expected, 0.0])
        assert nothing == ()
    with pytest.raises(ModelError, match=r"a prior of \d+ labels"):
        load_label_prior(PriorOptions(options.path), lms, own)
    with pytest.raises(ConfigError, match=r"decoding.priors.p: whose labels .*--model"):
        load_label_prior(PriorOptions(options.path), lms, None, "p")


def test_known_scorers_take_scales():
    check_rescoring(RescoringSearch(scales={"speech_llm": 1.0, "length": 0.1, "ctc": 0.0}), ["speech_llm"])


def test_equal_units_judge_the_labels_as_they_are():
    units = tiny_units("sentencepiece")
    lm, text = lm_over(units), TEXTS[0]
    canonical = units.encode(text)
    spelt = [units.special_id(piece) for piece in ["▁", *units.normalize(text).replace(" ", "▁")]]
    labels = tuple(label for label in spelt if label is not None)
    nbest = [Hypothesis(labels, units.decode(labels), 0.0), Hypothesis(tuple(canonical), text, 0.0)]
    (own,), _ = with_lm([nbest], "lm", lm, units)
    assert [h.scores["lm"] for h in own] == pytest.approx(lm.log_probs([[labels, canonical]]).scores[0])
    (read,), _ = with_lm([nbest], "lm", lm, None)
    assert [h.scores["lm"] for h in read] == pytest.approx(
        lm.log_probs([[units.encode(nbest[0].text), canonical]]).scores[0]
    )


def test_units_with_more_labels_judge_the_labels_as_they_are():
    units, more = tiny_units("sentencepiece"), tiny_units("sentencepiece")
    more.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]", "[MORE]"]})
    lm = lm_over(TokenizerUnits(more.tokenizer))
    assert lm.units.size == units.size + 1
    labels = [5, 6, 5]
    (found,), _ = with_lm([[Hypothesis(tuple(labels), "other", 0.0)]], "lm", lm, units)
    assert found[0].scores["lm"] == pytest.approx(lm.log_probs([[labels]]).scores[0][0])


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_other_units_judge_the_text(kind):
    units, own = tiny_bpe(kind), tiny_units()
    lm = lm_over(units)
    nbest = nbest_of([TEXTS[0], "", TEXTS[1], TEXTS[0]], own)
    (found,), counts = with_lm([nbest], "lm", lm, own)
    expected = [lm.log_probs([[units.encode(h.text)]]).scores[0][0] for h in nbest]
    assert [h.scores["lm"] for h in found] == pytest.approx(expected, abs=1e-4)
    assert counts.nodes < counts.labels
    assert all(h.scores["ctc"] == old.scores["ctc"] for h, old in zip(found, nbest, strict=True))
