import pytest

from kikitori.decoding.options import (
    DelayedFusionSearch,
    GreedySearch,
    LexiconSearch,
    LMOptions,
    PriorOptions,
    RescoringSearch,
    ShallowFusionSearch,
)
from kikitori.decoding.own_search import own_search, within
from kikitori.errors import ModelError


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "lm").mkdir(parents=True)
    (model / "p.safetensors").write_bytes(b"")
    (tmp_path / "other").mkdir()
    (model / "link").symlink_to(tmp_path / "other")
    return model


def test_names_are_paths_in_the_folder(folder):
    lm, prior = str((folder / "lm").resolve()), str((folder / "p.safetensors").resolve())
    assert within(folder, ShallowFusionSearch(lm="lm", prior="p.safetensors")) == ShallowFusionSearch(
        lm=lm, prior=prior
    )
    found = within(folder, DelayedFusionSearch(lm=LMOptions("lm", text_form="lower")))
    assert found == DelayedFusionSearch(lm=LMOptions(lm, text_form="lower"))
    search = RescoringSearch(lms={"a": LMOptions("lm")}, priors={"b": PriorOptions("p.safetensors", lm="a")})
    assert within(folder, search).lms == {"a": LMOptions(lm)}
    assert within(folder, search).priors == {"b": PriorOptions(prior, lm="a")}
    words = LexiconSearch(lexicon="p.safetensors", ngram="p.safetensors", prior="p.safetensors")
    found = LexiconSearch(lexicon=prior, ngram=prior, prior=prior)
    assert within(folder, words) == found
    assert within(folder, RescoringSearch(first=words)) == RescoringSearch(first=found)
    for plain in (GreedySearch(), LexiconSearch(), RescoringSearch(), ShallowFusionSearch(), DelayedFusionSearch()):
        assert within(folder, plain) == plain


@pytest.mark.parametrize("path", ["../other", "link", "someone/model", "/etc", "lm/../../other"])
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
    ):
        with pytest.raises(ModelError, match=r"decoding.yaml: it names '.*', which is not in the folder"):
            within(folder, search)


def test_from_the_file(folder):
    assert own_search(folder) is None
    (folder / "decoding.yaml").write_text("search: shallow_fusion\nlm: lm\n")
    assert own_search(folder) == ShallowFusionSearch(lm=str((folder / "lm").resolve()))
