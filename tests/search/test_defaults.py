import os

import pytest

from kikitori.errors import ConfigError, ModelError
from kikitori.scorers.options import ScorerOptions
from kikitori.search.defaults import default_draft_search, default_search, named_search, within
from kikitori.search.options import (
    CascadeSearch,
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    GreedySearch,
    JointSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    SpeculativeSearch,
)


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "lm").mkdir(parents=True)
    (model / "p.safetensors").write_bytes(b"")
    (tmp_path / "other").mkdir()
    (model / "lm" / "link").symlink_to(tmp_path / "other")
    return model


def test_names_are_paths_in_the_folder(folder):
    lm, prior = str((folder / "lm").resolve()), str((folder / "p.safetensors").resolve())
    assert within(
        folder,
        ShallowFusionSearch(scorers={"lm": ScorerOptions(path="lm"), "prior": ScorerOptions(path="p.safetensors")}),
        "decoding.yaml",
    ) == ShallowFusionSearch(scorers={"lm": ScorerOptions(path=lm), "prior": ScorerOptions(path=prior)})
    found = within(
        folder, DelayedFusionSearch(scorers={"lm": ScorerOptions(path="lm", text_form="lower")}), "decoding.yaml"
    )
    assert found == DelayedFusionSearch(scorers={"lm": ScorerOptions(path=lm, text_form="lower")})
    search = RescoringSearch(
        scorers={"a": ScorerOptions(path="lm"), "b": ScorerOptions(path="p.safetensors", prior=True, lm="a")}
    )
    assert within(folder, search, "decoding.yaml").lms == {"a": ScorerOptions(path=lm)}
    assert within(folder, search, "decoding.yaml").priors == {"b": ScorerOptions(path=prior, prior=True, lm="a")}
    words = LexiconSearch(
        scorers={name: ScorerOptions(path="p.safetensors") for name in ("phones", "ngram", "prior")},
    )
    found = LexiconSearch(scorers={name: ScorerOptions(path=prior) for name in ("phones", "ngram", "prior")})
    assert within(folder, words, "decoding.yaml") == found
    assert within(folder, RescoringSearch(first=words), "decoding.yaml") == RescoringSearch(first=found)
    assert within(folder, SpeculativeSearch(draft=words), "decoding.yaml") == SpeculativeSearch(draft=found)
    plain_searches = GreedySearch(), LexiconSearch(), RescoringSearch(), ShallowFusionSearch(), DelayedFusionSearch()
    for plain in (*plain_searches, SpeculativeSearch()):
        assert within(folder, plain, "decoding.yaml") == plain


@pytest.mark.parametrize("path", ["../other", "lm/link", "someone/model", "/etc", "lm/../../other"])
def test_what_lies_elsewhere_is_refused(folder, path):
    for search in (
        ShallowFusionSearch(scorers={"lm": ScorerOptions(path=path)}),
        ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=path)}),
        ShallowFusionSearch(scorers={"prior": ScorerOptions(path=path)}),
        DelayedFusionSearch(scorers={"lm": ScorerOptions(path=path)}),
        DelayedFusionSearch(scorers={"prior": ScorerOptions(path=path)}),
        RescoringSearch(scorers={"a": ScorerOptions(path=path)}),
        RescoringSearch(scorers={"a": ScorerOptions(path=path, prior=True)}),
        LexiconSearch(scorers={"phones": ScorerOptions(path=path)}),
        LexiconSearch(scorers={"ngram": ScorerOptions(path=path)}),
        LexiconSearch(scorers={"prior": ScorerOptions(path=path)}),
        RescoringSearch(first=LexiconSearch(scorers={"ngram": ScorerOptions(path=path)})),
        SpeculativeSearch(draft=LexiconSearch(scorers={"phones": ScorerOptions(path=path)})),
    ):
        with pytest.raises(ModelError, match=r"decoding.yaml: it names '.*', which is not in the folder"):
            within(folder, search, "decoding.yaml")


def test_from_the_file(folder):
    assert default_search(folder) is None
    (folder / "decoding.yaml").write_text("search: shallow_fusion\nlm: lm\n")
    assert default_search(folder) == ShallowFusionSearch(
        scorers={"lm": ScorerOptions(path=str((folder / "lm").resolve()))}
    )


def test_the_name_of_the_own_search_is_that_of_the_file(folder, tmp_path):
    assert named_search("lexicon", None) == named_search("lexicon", folder) == LexiconSearch()
    (folder / "decoding.yaml").write_text("search: lexicon\nngram_scale: 1.5\nprior: p.safetensors\n")
    own = LexiconSearch(
        scorers={
            "ngram": ScorerOptions(scale=1.5),
            "prior": ScorerOptions(path=str((folder / "p.safetensors").resolve())),
        }
    )
    assert named_search("lexicon", folder) == default_search(folder) == own
    overrides = ["decoding.nbest=60", "decoding.prior=null"]
    assert named_search("lexicon", folder, overrides) == LexiconSearch(
        nbest=60, scorers={"ngram": ScorerOptions(scale=1.5), "prior": ScorerOptions()}
    )
    assert named_search("ctc_beam", folder, ["decoding.beam=3"]) == CTCBeamSearch(beam=3)
    (tmp_path / "search.yaml").write_text("search: lexicon\nbeam: 7\n")
    assert named_search(str(tmp_path / "search.yaml"), folder) == LexiconSearch(beam=7)
    with pytest.raises(ConfigError, match="no such search: 'lexikon'"):
        named_search("lexikon", folder)
    (folder / "decoding.yaml").write_text("max_labels: 9\n")
    assert named_search("greedy", folder) == default_search(folder) == GreedySearch(max_labels=9)


def test_the_name_of_the_second_search_of_a_cascade_is_that_of_the_file(folder):
    (folder / "decoding.yaml").write_text("search: cascade\nsecond: {beam: 7}\n")
    assert named_search("cascade", folder) == CascadeSearch(second=JointSearch(beam=7))
    assert named_search("joint", folder) == JointSearch(beam=7)
    assert named_search("joint", folder, ["decoding.nbest=2"]) == JointSearch(beam=7, nbest=2)
    assert named_search("greedy", folder) == GreedySearch()
    text = "search: cascade\nsecond: {search: rescoring, scorers: {lm: {path: lm, scale: 0.3}}}\n"
    (folder / "decoding.yaml").write_text(text)
    found = named_search("rescoring", folder)
    assert found.scorers["lm"].path == str((folder / "lm").resolve())
    assert named_search("joint", folder) == JointSearch()


def test_a_name_gets_around_a_file_that_is_wrong_for_another_search(folder):
    for wrong in ("lexicon\nprior: ../other", "lexicon\nbeams: 3", "of_tomorrow"):
        (folder / "decoding.yaml").write_text(f"search: {wrong}\n")
        assert named_search("greedy", folder) == GreedySearch()
        with pytest.raises((ConfigError, ModelError), match=r"decoding\.yaml"):
            default_search(folder)


def test_the_file_lies_in_the_folder(folder, tmp_path):
    (tmp_path / "secret.yaml").write_text("search: lexicon\n")
    (folder / "decoding.yaml").symlink_to(tmp_path / "secret.yaml")
    for read in (default_search, lambda folder: named_search("lexicon", folder)):
        with pytest.raises(ModelError, match="leads out of the folder"):
            read(folder)
    (folder / "decoding.yaml").unlink()
    os.mkfifo(folder / "decoding.yaml")
    assert default_search(folder) is None  # loading the model refuses it


def test_drafts_come_from_a_file_of_their_own(folder):
    (folder / "decoding.yaml").write_text("search: lexicon\n")
    for without in (None, folder):
        with pytest.raises(ModelError, match=r"the LLM reads drafts, and there is no draft\.yaml"):
            default_draft_search(without)
    (folder / "words").write_text("")
    for text, expected in {
        "search: ctc_greedy\n": CTCGreedySearch(),
        "search: ctc_beam\nbeam: 3\n": CTCBeamSearch(beam=3),
        "search: lexicon\nngram: words\n": LexiconSearch(
            scorers={"ngram": ScorerOptions(path=str((folder / "words").resolve()))}
        ),
    }.items():
        (folder / "draft.yaml").write_text(text)
        assert default_draft_search(folder) == expected
    (folder / "draft.yaml").write_text("search: greedy\n")
    with pytest.raises(ModelError, match="'greedy' makes no drafts"):
        default_draft_search(folder)
    (folder / "draft.yaml").write_text("search: lexicon\nngram: ../words\n")
    with pytest.raises(ModelError, match=r"draft\.yaml: it names '../words', which is not in the folder"):
        default_draft_search(folder)
