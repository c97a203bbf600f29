from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from kikitori.errors import ConfigError
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.search.options import (
    SEARCHES,
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    GreedySearch,
    JointSearch,
    LexiconSearch,
    RescoringSearch,
    SamplingSearch,
    ShallowFusionSearch,
    SpeculativeSearch,
    decoding_yaml,
    load_decoding,
    with_overrides,
)
from kikitori.search.pruning import FramePruning


def test_names():
    assert load_decoding("greedy") == GreedySearch() == GreedySearch("greedy", None)
    assert load_decoding("ctc_greedy") == CTCGreedySearch()
    assert load_decoding("sampling") == SamplingSearch(temperature=1.0, top_k=0, top_p=1.0, seed=1234)
    assert load_decoding("ctc_beam") == CTCBeamSearch()
    assert load_decoding("shallow_fusion", ["decoding.scorers.lm.path=a/b", "decoding.beam=3"]) == ShallowFusionSearch(
        beam=3, scorers={"lm": ScorerOptions(path="a/b")}
    )
    assert [*SEARCHES] == [search().search for search in SEARCHES.values()]


@pytest.mark.parametrize("name", ["beem", "", "Greedy", "greedy.yam"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ConfigError) as caught:
        load_decoding(name)
    message = str(caught.value)
    assert "--decoding" in message
    assert "'greedy'" in message
    assert "'ctc_greedy'" in message
    assert f"'{name}'" in message


def test_a_scorer_is_taken_away(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text(
        "search: rescoring\nfirst: {search: joint, scorers: {ctc: {scale: 0.1}}}\nscorers: {phones: {}, ctc: {}}\n"
    )
    found = load_decoding(file, ["decoding.scorers.phones=null", "decoding.first.scorers.ctc=null"])
    assert found == RescoringSearch(first=JointSearch(), scorers={"ctc": ScorerOptions()})
    assert with_overrides(found, ["decoding.scorers.phones.scale=1"]).scale("phones") == 1.0
    with pytest.raises(ConfigError, match=r"scorers\.fones: no such scorer to take away; there are phones, ctc"):
        load_decoding(file, ["decoding.scorers.fones=null"])
    with pytest.raises(ConfigError, match=r"scorers\.lm: no such scorer to take away; there is none"):
        load_decoding("ctc_beam", ["decoding.scorers.lm=null"])


def test_yaml_and_overrides(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text("search: greedy\nmax_labels: 40\n")
    assert load_decoding(file) == load_decoding(str(file)) == GreedySearch(max_labels=40)
    assert load_decoding(file, ["decoding.max_labels=7"]) == GreedySearch(max_labels=7)
    assert load_decoding(file, ["decoding.max_labels=null", "decoding.search=greedy"]) == GreedySearch()
    assert load_decoding("greedy", ["decoding.max_labels=1", "decoding.max_labels=2"]) == GreedySearch(max_labels=2)
    file.write_text("")
    assert load_decoding(file) == GreedySearch()
    file.write_text("search: sampling\ntemperature: 0.7\nmin_labels: 2\n")
    options = ["decoding.top_k=50", "decoding.top_p=0.9", "decoding.seed=5", "decoding.temperature=2"]
    expected = SamplingSearch(min_labels=2, temperature=2.0, top_k=50, top_p=0.9, seed=5)
    assert load_decoding(file, options) == expected
    file.write_text("search: ctc_beam\nbeam: 64\npruning: {score_beam: null, recombine: max, collapse: 0.8}\n")
    expected = CTCBeamSearch(beam=64, nbest=3, pruning=FramePruning(score_beam=None, recombine="max", collapse=0.8))
    assert load_decoding(file, ["decoding.nbest=3"]) == expected


def test_sections_are_overridden_key_by_key(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text(
        "search: rescoring\nfirst: {beam: 8, nbest: 5}\nscorers: {ctc: {scale: 0.9}, lm: {path: here, scale: 0.3}}\n"
    )
    found = load_decoding(
        file, ["decoding.scorers.lm.scale=0.5", "decoding.scorers.lm.text_form=lower", "decoding.first.beam=9"]
    )
    scorers = {"ctc": ScorerOptions(0.9), "lm": ScorerOptions(0.5, "here", text_form="lower")}
    assert found == RescoringSearch(first=CTCBeamSearch(beam=9, nbest=5), scorers=scorers)


def test_rescoring_of_another_first_search(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text("search: rescoring\nfirst: {search: lexicon, beam: 300}\nscorers: {ngram: {scale: 0.5}}\n")
    expected = RescoringSearch(first=LexiconSearch(beam=300), scorers={"ngram": ScorerOptions(0.5)})
    assert load_decoding(file) == expected
    assert (
        load_decoding("rescoring", ["decoding.first.search=lexicon", "decoding.first.beam=300"]).first == expected.first
    )


def test_when_delayed_fusion_judges():
    assert load_decoding("delayed_fusion") == DelayedFusionSearch(trigger=20)
    options = [f"decoding.{each}" for each in ("trigger=word_end", "scorers.lm.path=a/b", "scorers.lm.text_form=lower")]
    expected = DelayedFusionSearch(trigger="word_end", scorers={"lm": ScorerOptions(path="a/b", text_form="lower")})
    assert load_decoding("delayed_fusion", options) == expected
    assert load_decoding("delayed_fusion", ["decoding.trigger=5"]).trigger == 5
    for wrong in ("0", "sometimes", "2.5", "null"):
        with pytest.raises(ConfigError, match=r"trigger"):
            load_decoding("delayed_fusion", [f"decoding.trigger={wrong}"])


def test_drafts_come_from_a_search_of_their_own(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text("search: speculative\ndraft: {search: ctc_beam, beam: 4}\nmax_labels: 5\n")
    assert load_decoding(file) == SpeculativeSearch(draft=CTCBeamSearch(beam=4), max_labels=5)
    beam = SpeculativeSearch(draft=CTCBeamSearch(beam=4))
    assert load_decoding("speculative", ["decoding.draft.search=ctc_beam", "decoding.draft.beam=4"]) == beam
    assert load_decoding(file, ["decoding.draft.search=ctc_greedy"]).draft == CTCGreedySearch()
    assert load_decoding(file, ["decoding.draft=null"]) == SpeculativeSearch(max_labels=5)
    words = load_decoding("speculative", ["decoding.draft.search=lexicon", "decoding.draft.scorers.ngram.scale=0.7"])
    assert words == SpeculativeSearch(draft=LexiconSearch(scorers={"ngram": ScorerOptions(scale=0.7)}))
    assert load_decoding("speculative").draft is None
    for wrong in ("draft.search=greedy", "draft.beam=3", "max_labels=0"):
        with pytest.raises(ConfigError):
            load_decoding("speculative", [f"decoding.{wrong}"])


def test_another_search_leaves_the_options_of_the_first_behind(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text("search: greedy\nmax_labels: 40\n")
    assert load_decoding(file, ["decoding.search=ctc_beam", "decoding.beam=4"]) == CTCBeamSearch(beam=4)
    with pytest.raises(ConfigError, match="max_labels"):
        load_decoding(file, ["decoding.search=ctc_greedy", "decoding.max_labels=3"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search: shallow_fusion\nllm_scale: -1", "llm_scale"),
        ("search: shallow_fusion\nlm: 3", "lm"),
        ("serch: greedy", "did you mean 'search'"),
        ("max_labels: 0", "max_labels"),
        ("max_labels: 2.5", "max_labels"),
        ("max_labels: '3'", "max_labels"),
        ("search: beem", "'beem'"),
        ("min_labels: -1", "min_labels"),
        ("search: sampling\ntemperature: 0", "temperature"),
        ("search: sampling\ntemperature: -0.5", "temperature"),
        ("search: sampling\ntemperature: .inf", "temperature"),
        ("search: sampling\ntemperature: .nan", "temperature"),
        ("search: sampling\ntop_k: -1", "top_k"),
        ("search: sampling\ntop_k: 1.5", "top_k"),
        ("search: sampling\ntop_p: 0", "top_p"),
        ("search: sampling\ntop_p: 1.1", "top_p"),
        ("search: sampling\nseed: -1", "seed"),
        ("search: sampling\nseed: abc", "seed"),
        ("search: ctc_greedy\nmax_labels: 3", "max_labels"),
        ("search: 3", "no such search: 3"),
        ("search: ctc_beam\nbeam: 0", "beam"),
        ("search: ctc_beam\nbeam: 2.0", "beam"),
        ("search: ctc_beam\nbaem: 2", "did you mean 'beam'"),
        ("search: ctc_beam\nscore_beam: 0", "score_beam"),
        ("search: ctc_beam\nscore_beam: .nan", "score_beam"),
        ("search: ctc_beam\nmin_log_prob: 0.5", "min_log_prob"),
        ("search: ctc_beam\nrecombine: mean", "recombine"),
        ("search: ctc_beam\ncollapse: 1.5", "collapse"),
        ("search: rescoring\nfirst: {beem: 3}", "beem"),
        ("search: rescoring\nfirst: {search: greedy}", "first"),
        ("search: lexicon\nscorers: {phones: {scale: 0.5}}", "the scale of 'phones' is 1 in this search"),
        ("search: lexicon\nscorers: {ngram: {scale: -1}}", "the scale of 'ngram' has to be 0 or above"),
        (
            "search: lexicon\nscorers: {lm: {scale: 1}}",
            "scorers: this search has no scorer 'lm' (there are phones, ngram, prior",
        ),
        ("search: shallow_fusion\nscorers: {lm: {prompt: a}}", "'prompt' is no option of the scorer 'lm'"),
        ("search: shallow_fusion\nscorers: {length: {path: a}}", "'path' is no option of the scorer 'length'"),
        ("search: joint\nscorers: {ctc: {scale: 1.5}}", "has to be from 0 to 1, unless 'speech_llm' has one too"),
        ("search: rescoring\nscorers: {books: {pth: x}}", "did you mean 'path'"),
        ("search: rescoring\nscorers: {lm: {path: x, text_form: upper}}", "text_form"),
        ("search: rescoring\nscorers: {lm: {scale: .nan}}", "scorers.lm.scale"),
        ("- greedy", "mapping"),
        ("search: [", "YAML"),
    ],
)
def test_bad_yaml_names_file_and_key(tmp_path, text, expected):
    file = tmp_path / "mine.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_decoding(file)
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_yaml(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_decoding(tmp_path / "decoding.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("max_labels=3", "begin with decoding."),
        ("decoding.max_label=3", "did you mean 'max_labels'"),
        ("decoding.max_labels=many", "max_labels"),
        ("decoding.max_labels=-1", "max_labels"),
        ("decoding.max_labels", "key=value"),
        ("decoding.=3", "key=value"),
        ("decoding.search.name=greedy", "search"),
        ("decodingmax_labels=3", "begin with decoding."),
    ],
)
def test_bad_overrides(override, expected):
    with pytest.raises(ConfigError) as caught:
        with_overrides(GreedySearch(), [override])
    assert expected in str(caught.value)


def test_overrides_leave_the_original_alone():
    original = GreedySearch(max_labels=9)
    assert with_overrides(original, []) == original
    assert with_overrides(original, ["decoding.max_labels=3"]) == GreedySearch(max_labels=3)
    assert original == GreedySearch(max_labels=9)


def leaves(search):
    """Options of a search by name, those of sections too; scorers have those of any scorer."""
    found = set()
    for field in fields(search):
        types = [each for each in (field.type, *get_args(field.type)) if isinstance(each, type)]
        sections = [each for each in types if is_dataclass(each)]
        inner = {name for section in sections if section not in SEARCHES.values() for name in leaves(section)}
        found |= {field.name, *inner, *(leaves(ScorerOptions) if field.name == "scorers" else ())}
    return found


def test_there_are_few_options():
    assert sum(len(fields(search)) for search in SEARCHES.values()) <= 81  # of which `decoder` is eight
    assert len({name for search in SEARCHES.values() for name in leaves(search)}) <= 36  # `decoder` too


def test_natural_scales_and_their_defaults():
    search = load_decoding("shallow_fusion", ["decoding.scorers.prior.scale=-0.35", "decoding.scorers.lm.path=x"])
    assert [search.scale(name) for name in ("lm", "prior", "length")] == [0.5, -0.35, 0.0]
    joint = load_decoding("joint", ["decoding.scorers.ctc.scale=0.4"])
    assert (joint.scale("ctc"), joint.scale("speech_llm"), joint.scale("ilm")) == (0.4, 0.6, 0.0)
    free = JointSearch(scorers=with_scales({}, {"ctc": 2.0, "speech_llm": 1.0, "ilm": -0.3}))
    assert (free.scale("ctc"), free.scale("speech_llm"), free.scale("ilm")) == (2.0, 1.0, -0.3)


LMS = {"books": ScorerOptions(0.1, "b", text_form="lower"), "theirs": ScorerOptions(-0.2, "q", prior=True, lm="books")}


@pytest.mark.parametrize(
    "options",
    [
        RescoringSearch(scorers=LMS),
        RescoringSearch(first=CTCBeamSearch(beam=4, pruning=FramePruning(min_log_prob=None))),
        RescoringSearch(first=CTCBeamSearch(), scorers=with_scales({}, {"length": 1e-5})),
        RescoringSearch(first=LexiconSearch(nbest=7, scorers=with_scales({}, {"ngram": 0.7}))),
        RescoringSearch(first=LexiconSearch()),
        ShallowFusionSearch(pruning=FramePruning(score_beam=None), scorers={"lm": ScorerOptions(path="x")}),
        SpeculativeSearch(draft=CTCGreedySearch()),
        SpeculativeSearch(draft=LexiconSearch(beam=3)),
        GreedySearch(),
    ],
)
def test_a_file_says_what_differs(options, tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text(decoding_yaml(options))
    assert load_decoding(file) == options
    assert "first" not in decoding_yaml(RescoringSearch(scorers=LMS))
    assert decoding_yaml(GreedySearch()) == "search: greedy\n"
