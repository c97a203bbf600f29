from dataclasses import replace

import pytest

from kikitori.errors import ModelError
from kikitori.scorers.options import LMOptions, PriorOptions
from kikitori.search.options import (
    CTCBeamSearch,
    DelayedFusionSearch,
    GreedySearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    load_decoding,
)
from kikitori.search.rescore import check_rescoring
from kikitori.search.scales import decoding_yaml, list_search, partner_shares, with_scales

LMS = {"books": LMOptions("b", text_form="lower"), "news": LMOptions("n")}
PRIORS = {"ours": PriorOptions("p"), "theirs": PriorOptions("q", lm="news")}
SCALES = {"books": 0.1, "news": 0.2, "length": 1.0, "ours": -0.1, "theirs": -0.2}
RESCORING = RescoringSearch(lms=LMS, priors=PRIORS, scales=SCALES)
FUSION = ShallowFusionSearch(lm="x", prior="p", beam=8, collapse=0.8, llm_scale=0.1, prior_scale=0.9)


def test_scales_of_rescoring():
    new = with_scales(RESCORING, {"ctc": 1.0, "books": 0.3, "news": 0.0, "ours": -0.2})
    assert new.scales == {"ctc": 1.0, "books": 0.3, "ours": -0.2}
    assert (new.lms, new.priors) == ({"books": LMS["books"]}, {"ours": PRIORS["ours"]})
    assert new.first == RESCORING.first


def test_a_language_model_stays_for_the_prior_that_counts_its_labels():
    new = with_scales(RESCORING, {"ctc": 1.0, "news": 0.0, "theirs": -0.2})
    assert (new.lms, new.priors) == ({"news": LMS["news"]}, {"theirs": PRIORS["theirs"]})
    assert new.scales == {"news": 0.0, "ctc": 1.0, "theirs": -0.2}
    check_rescoring(new)


def test_scales_of_one_pass_have_its_names_and_signs():
    new = with_scales(FUSION, {"ctc": 1.0, "lm": 0.3, "prior": -0.2})
    assert (new.llm_scale, new.prior_scale, new.length_scale) == (0.3, 0.2, 0.0)
    assert (new.lm, new.beam, new.collapse) == ("x", 8, 0.8)
    assert str(with_scales(FUSION, {"lm": 0.0, "prior": 0.0}).prior_scale) == "0.0"


def test_lists_for_one_pass_are_long_and_searched_alike(tmp_path):
    search = list_search(FUSION, {"lm", "prior"}, None)
    assert search.first == CTCBeamSearch(beam=64, nbest=64, collapse=0.8)
    assert search.lms == {"lm": LMOptions("x")}
    assert (search.priors, search.scales) == ({"prior": PriorOptions("p")}, {"lm": 0.0, "prior": 0.0})
    check_rescoring(search)
    assert list_search(FUSION, {"prior"}, None).lms == {}
    (tmp_path / "lm").mkdir()
    own = list_search(ShallowFusionSearch(), {"lm", "length"}, tmp_path)
    assert own.lms == {"lm": LMOptions(str(tmp_path / "lm"))}
    for folder in (None, tmp_path / "lm"):
        for name in ("lm", "prior"):
            with pytest.raises(ModelError, match=rf"decoding\.{name}: nothing is named"):
                list_search(ShallowFusionSearch(), {name}, folder)


def test_an_ngram_beside_the_lm_or_alone(tmp_path):
    search = ShallowFusionSearch(ngram="n.arpa")
    assert partner_shares(search, (), None) == ["ngram", "length"]
    (tmp_path / "lm").mkdir()
    assert partner_shares(search, (), tmp_path) == ["lm", "ngram", "length"]
    assert partner_shares(search, ["prior"], None) == ["ngram", "prior", "length"]
    assert partner_shares(ShallowFusionSearch(), (), None) == ["lm", "length"]
    assert list_search(search, {"ngram"}, None).lms == {"ngram": LMOptions("n.arpa")}
    assert with_scales(search, {"ngram": 0.25}).ngram_scale == 0.25


def test_delayed_fusion_has_an_lm_with_a_text_form_and_no_ngram():
    lm = LMOptions("x", text_form="lower", prompt="words")
    search = DelayedFusionSearch(lm=lm, prior="p", trigger="word_end")
    assert partner_shares(search, ["ngram"], None) == ["lm", "prior", "length"]
    assert list_search(search, {"lm", "prior"}, None).lms == {"lm": lm}
    new = with_scales(search, {"ctc": 1.0, "lm": 0.3, "prior": -0.2})
    assert (new.lm, new.trigger, new.llm_scale, new.prior_scale) == (lm, "word_end", 0.3, 0.2)


def test_lists_for_rescoring_have_what_is_named():
    search = list_search(RESCORING, {"news", "speech_llm"}, None)
    assert (search.lms, search.scales) == ({"news": LMS["news"]}, {"news": 0.0, "speech_llm": 0.0})
    assert search.first == RESCORING.first


@pytest.mark.parametrize(
    "options",
    [
        RESCORING,
        RescoringSearch(first=CTCBeamSearch(beam=4, min_log_prob=None), scales={"length": 1e-5}),
        RescoringSearch(first=CTCBeamSearch()),
        FUSION,
        ShallowFusionSearch(score_beam=None),
        GreedySearch(),
    ],
)
def test_a_file_says_what_differs(options, tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text(decoding_yaml(options))
    assert load_decoding(file) == options
    assert "first" not in decoding_yaml(RESCORING)
    assert decoding_yaml(GreedySearch()) == "search: greedy\n"


def test_lexicon_search_is_tuned_on_lists_of_its_own(tmp_path):
    search = LexiconSearch(beam=50, prior="p", prior_scale=0.2, ngram_scale=0.4)
    assert partner_shares(search, (), None) == ["ngram", "length"]
    lists = list_search(search, ["ngram", "length"], None)
    assert lists == RescoringSearch(first=replace(search, nbest=200), scales={"ngram": 0.0, "length": 0.0})
    check_rescoring(lists)
    new = with_scales(search, {"ctc": 1.0, "ngram": 0.9, "length": 1.5})
    assert new == replace(search, ngram_scale=0.9, length_scale=1.5)
    with pytest.raises(ModelError, match=r"decoding\.lm: it is no share of a lexicon search"):
        list_search(search, ["ngram", "lm"], None)
    rescoring = replace(lists, lms={"lm": LMOptions("x")}, scales={"ngram": 0.4, "lm": 0.1})
    assert partner_shares(rescoring, (), None) == ["ngram", "lm", "ngram", "lm"]
    for options in (new, rescoring):
        (tmp_path / "d.yaml").write_text(decoding_yaml(options))
        assert load_decoding(tmp_path / "d.yaml") == options
