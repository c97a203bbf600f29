import os

import pytest

from kikitori.errors import ConfigError, ModelError
from kikitori.scorers.options import LMOptions, PriorOptions
from kikitori.search.defaults import named_search, own_draft, own_search, within
from kikitori.search.options import (
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    GreedySearch,
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
    assert within(folder, ShallowFusionSearch(lm="lm", prior="p.safetensors"), "decoding.yaml") == ShallowFusionSearch(
        lm=lm, prior=prior
    )
    found = within(folder, DelayedFusionSearch(lm=LMOptions("lm", text_form="lower")), "decoding.yaml")
    assert found == DelayedFusionSearch(lm=LMOptions(lm, text_form="lower"))
    search = RescoringSearch(lms={"a": LMOptions("lm")}, priors={"b": PriorOptions("p.safetensors", lm="a")})
    assert within(folder, search, "decoding.yaml").lms == {"a": LMOptions(lm)}
    assert within(folder, search, "decoding.yaml").priors == {"b": PriorOptions(prior, lm="a")}
    words = LexiconSearch(lexicon="p.safetensors", ngram="p.safetensors", prior="p.safetensors")
    found = LexiconSearch(lexicon=prior, ngram=prior, prior=prior)
    assert within(folder, words, "decoding.yaml") == found
    assert within(folder, RescoringSearch(first=words), "decoding.yaml") == RescoringSearch(first=found)
    assert within(folder, SpeculativeSearch(draft=words), "decoding.yaml") == SpeculativeSearch(draft=found)
    plain_searches = GreedySearch(), LexiconSearch(), RescoringSearch(), ShallowFusionSearch(), DelayedFusionSearch()
    for plain in (*plain_searches, SpeculativeSearch()):
        assert within(folder, plain, "decoding.yaml") == plain


@pytest.mark.parametrize("path", ["../other", "lm/link", "someone/model", "/etc", "lm/../../other"])
def test_what_lies_elsewhere_is_refused(folder, path):
    for search in (
        ShallowFusionSearch(lm=path),
        ShallowFusionSearch(ngram=path),
        ShallowFusionSearch(prior=path),
        DelayedFusionSearch(lm=LMOptions(path)),
        DelayedFusionSearch(prior=path),
        RescoringSearch(lms={"a": LMOptions(path)}),
        RescoringSearch(priors={"a": PriorOptions(path)}),
        LexiconSearch(lexicon=path),
        LexiconSearch(ngram=path),
        LexiconSearch(prior=path),
        RescoringSearch(first=LexiconSearch(ngram=path)),
        SpeculativeSearch(draft=LexiconSearch(lexicon=path)),
    ):
        with pytest.raises(ModelError, match=r"decoding.yaml: it names '.*', which is not in the folder"):
            within(folder, search, "decoding.yaml")


def test_from_the_file(folder):
    assert own_search(folder) is None
    (folder / "decoding.yaml").write_text("search: shallow_fusion\nlm: lm\n")
    assert own_search(folder) == ShallowFusionSearch(lm=str((folder / "lm").resolve()))


def test_the_name_of_the_own_search_is_that_of_the_file(folder, tmp_path):
    assert named_search("lexicon", None) == named_search("lexicon", folder) == LexiconSearch()
    (folder / "decoding.yaml").write_text("search: lexicon\nngram_scale: 1.5\nprior: p.safetensors\n")
    own = LexiconSearch(ngram_scale=1.5, prior=str((folder / "p.safetensors").resolve()))
    assert named_search("lexicon", folder) == own_search(folder) == own
    overrides = ["decoding.nbest=60", "decoding.prior=null"]
    assert named_search("lexicon", folder, overrides) == LexiconSearch(nbest=60, ngram_scale=1.5)
    assert named_search("ctc_beam", folder, ["decoding.beam=3"]) == CTCBeamSearch(beam=3)
    (tmp_path / "search.yaml").write_text("search: lexicon\nbeam: 7\n")
    assert named_search(str(tmp_path / "search.yaml"), folder) == LexiconSearch(beam=7)
    with pytest.raises(ConfigError, match="no such search: 'lexikon'"):
        named_search("lexikon", folder)
    (folder / "decoding.yaml").write_text("max_labels: 9\n")
    assert named_search("greedy", folder) == own_search(folder) == GreedySearch(max_labels=9)


def test_a_name_gets_around_a_file_that_is_wrong_for_another_search(folder):
    for wrong in ("lexicon\nprior: ../other", "lexicon\nbeams: 3", "of_tomorrow"):
        (folder / "decoding.yaml").write_text(f"search: {wrong}\n")
        assert named_search("greedy", folder) == GreedySearch()
        with pytest.raises((ConfigError, ModelError), match=r"decoding\.yaml"):
            own_search(folder)


def test_the_file_lies_in_the_folder(folder, tmp_path):
    (tmp_path / "secret.yaml").write_text("search: lexicon\n")
    (folder / "decoding.yaml").symlink_to(tmp_path / "secret.yaml")
    for read in (own_search, lambda folder: named_search("lexicon", folder)):
        with pytest.raises(ModelError, match="leads out of the folder"):
            read(folder)
    (folder / "decoding.yaml").unlink()
    os.mkfifo(folder / "decoding.yaml")
    assert own_search(folder) is None  # loading the model refuses it


def test_drafts_come_from_a_file_of_their_own(folder):
    (folder / "decoding.yaml").write_text("search: lexicon\n")
    for without in (None, folder):
        with pytest.raises(ModelError, match=r"the LLM reads drafts, and there is no draft\.yaml"):
            own_draft(without)
    (folder / "words").write_text("")
    for text, expected in {
        "search: ctc_greedy\n": CTCGreedySearch(),
        "search: ctc_beam\nbeam: 3\n": CTCBeamSearch(beam=3),
        "search: lexicon\nngram: words\n": LexiconSearch(ngram=str((folder / "words").resolve())),
    }.items():
        (folder / "draft.yaml").write_text(text)
        assert own_draft(folder) == expected
    (folder / "draft.yaml").write_text("search: greedy\n")
    with pytest.raises(ModelError, match="'greedy' makes no drafts"):
        own_draft(folder)
    (folder / "draft.yaml").write_text("search: lexicon\nngram: ../words\n")
    with pytest.raises(ModelError, match=r"draft\.yaml: it names '../words', which is not in the folder"):
        own_draft(folder)
