from dataclasses import replace

import pytest

from kikitori.errors import ModelError
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.search.options import (
    CTCBeamSearch,
    DelayedFusionSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    decoding_yaml,
    load_decoding,
)
from kikitori.search.pruning import FramePruning
from kikitori.search.rescore import check_rescoring
from kikitori.workflows.tuning.lists import list_search, scorer_names, with_tuned_scales

RESCORING = RescoringSearch(
    scorers={
        "books": ScorerOptions(0.1, "b", text_form="lower"),
        "news": ScorerOptions(0.2, "n"),
        "length": ScorerOptions(1.0),
        "ours": ScorerOptions(-0.1, "p", prior=True),
        "theirs": ScorerOptions(-0.2, "q", prior=True, lm="news"),
    }
)
FUSION = ShallowFusionSearch(
    beam=8,
    pruning=FramePruning(collapse=0.8),
    scorers={"lm": ScorerOptions(0.1, "x"), "prior": ScorerOptions(-0.9, "p")},
)


def test_scales_of_rescoring():
    new = with_tuned_scales(RESCORING, {"ctc": 1.0, "books": 0.3, "news": 0.0, "ours": -0.2})
    assert new.scales == {"ctc": 1.0, "books": 0.3, "ours": -0.2}
    assert [*new.lms] == ["books"]
    assert [*new.priors] == ["ours"]
    assert new.scorers["books"].text_form == "lower"
    assert new.first == RESCORING.first


def test_a_language_model_stays_for_the_prior_that_counts_its_labels():
    new = with_tuned_scales(RESCORING, {"ctc": 1.0, "news": 0.0, "theirs": -0.2})
    assert ([*new.lms], [*new.priors]) == (["news"], ["theirs"])
    assert new.scales == {"news": 0.0, "ctc": 1.0, "theirs": -0.2}
    check_rescoring(new)


def test_scales_of_one_pass():
    new = with_tuned_scales(FUSION, {"ctc": 1.0, "lm": 0.3, "prior": -0.2})
    assert new == replace(FUSION, scorers=with_scales(FUSION.scorers, {"lm": 0.3, "prior": -0.2}))
    left_out = with_tuned_scales(FUSION, {"ctc": 1.0, "length": 0.5})
    assert [left_out.scale(name) for name in ("lm", "prior", "length")] == [0.0, 0.0, 0.5]
    assert with_tuned_scales(ShallowFusionSearch(), {"ctc": 1.0}).scale("lm") == 0.0


def test_lists_for_one_pass_are_long_and_searched_alike(tmp_path):
    search = list_search(FUSION, ["lm", "prior"], None)
    assert search.first == CTCBeamSearch(beam=64, nbest=64, pruning=FramePruning(collapse=0.8))
    assert search.scorers == {"lm": ScorerOptions(0.0, "x"), "prior": ScorerOptions(0.0, "p")}
    check_rescoring(search)
    assert list_search(FUSION, ["prior"], None).lms == {}
    (tmp_path / "lm").mkdir()
    own = list_search(ShallowFusionSearch(), ["lm", "length"], tmp_path)
    assert own.lms == {"lm": ScorerOptions(0.0, str(tmp_path / "lm"))}
    for folder in (None, tmp_path / "lm"):
        for name in ("lm", "prior"):
            with pytest.raises(ModelError, match=rf"decoding\.scorers\.{name}\.path: nothing is named"):
                list_search(ShallowFusionSearch(), [name], folder)


def test_an_ngram_beside_the_lm_or_alone(tmp_path):
    search = ShallowFusionSearch(scorers={"ngram": ScorerOptions(path="n.arpa")})
    assert scorer_names(search, (), None) == ["ngram", "length"]
    (tmp_path / "lm").mkdir()
    assert scorer_names(search, (), tmp_path) == ["lm", "ngram", "length"]
    assert scorer_names(search, ["prior"], None) == ["ngram", "prior", "length"]
    assert scorer_names(ShallowFusionSearch(), (), None) == ["lm", "length"]
    assert list_search(search, ["ngram"], None).lms == {"ngram": ScorerOptions(0.0, "n.arpa")}
    assert with_tuned_scales(search, {"ngram": 0.25}).scale("ngram") == 0.25


def test_delayed_fusion_has_an_lm_with_a_text_form_and_no_ngram():
    lm = ScorerOptions(path="x", text_form="lower", prompt="words")
    search = DelayedFusionSearch(trigger="word_end", scorers={"lm": lm, "prior": ScorerOptions(path="p")})
    assert scorer_names(search, ["ngram"], None) == ["lm", "prior", "length"]
    assert list_search(search, ["lm", "prior"], None).lms == {"lm": replace(lm, scale=0.0)}
    new = with_tuned_scales(search, {"ctc": 1.0, "lm": 0.3, "prior": -0.2})
    assert (new.scorer("lm"), new.trigger, new.scale("prior")) == (replace(lm, scale=0.3), "word_end", -0.2)


def test_lists_for_rescoring_have_what_is_named():
    search = list_search(RESCORING, ["news", "speech_llm"], None)
    assert ([*search.lms], search.scales) == (["news"], {"ctc": 1.0, "news": 0.0, "speech_llm": 0.0})
    assert search.first == RESCORING.first


def test_lexicon_search_is_tuned_on_lists_of_its_own(tmp_path):
    prior = {"prior": ScorerOptions(-0.2, "p")}
    search = LexiconSearch(beam=50, scorers={**prior, "ngram": ScorerOptions(0.4)})
    assert scorer_names(search, (), None) == ["ngram", "length"]
    lists = list_search(search, ["ngram", "length"], None)
    assert lists.first == replace(search, nbest=200)
    assert lists.scales == {"ctc": 1.0, "ngram": 0.0, "length": 0.0}
    check_rescoring(lists)
    new = with_tuned_scales(search, {"ctc": 1.0, "ngram": 0.9, "length": 1.5})
    assert new.scorers == with_scales(prior, {"ngram": 0.9, "length": 1.5})
    with pytest.raises(ModelError, match=r"decoding\.scorers\.lm: lexicon search has no score of it"):
        list_search(search, ["ngram", "lm"], None)
    rescoring = replace(lists, scorers={"ngram": ScorerOptions(0.4), "lm": ScorerOptions(0.1, "x")})
    assert {*scorer_names(rescoring, (), None)} == {"ngram", "lm"}
    for options in (new, rescoring):
        (tmp_path / "d.yaml").write_text(decoding_yaml(options))
        assert load_decoding(tmp_path / "d.yaml") == options
