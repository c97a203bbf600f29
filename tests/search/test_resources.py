import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.decoder import probe
from kikitori.scorers.ngram import NGramScorer
from kikitori.scorers.options import ScorerOptions
from kikitori.scorers.prior import count_prior, save_prior
from kikitori.search.options import DelayedFusionSearch, RescoringSearch, ShallowFusionSearch
from kikitori.search.resources import ExternalModels
from kikitori.text.unit_training import character_units
from kikitori.text.units import vocabulary_fingerprint
from kikitori.workflows.ngram import write_ngram
from tests.tiny import TEXTS, save_tiny, save_tiny_llm, tiny_acoustic_model, tiny_bpe, tiny_units

CPU = torch.device("cpu")
UNITS = tiny_units()
SIZE = UNITS.size


def delayed(path, **settings):
    return DelayedFusionSearch(scorers={"lm": ScorerOptions(path=path, **settings)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_tiny_llm(path / "lm")
    save_prior(path / "prior.safetensors", count_prior([[5, 6]], SIZE))
    return path


def test_its_own_lm_and_prior(folder, tmp_path):
    models = ExternalModels(folder, UNITS, CPU)
    assert models.scorer(ShallowFusionSearch()).names == ("lm", "length", "prior")
    assert models.lm(None) is models.lm(str(folder / "lm"))  # loaded once
    save_tiny_llm(tmp_path / "run" / "model", "llama")
    alone = ExternalModels(None, UNITS, CPU)
    assert alone.scorer(ShallowFusionSearch(scorers={"lm": ScorerOptions(path=str(tmp_path / "run"))})).names == (
        "lm",
        "length",
    )
    named = ShallowFusionSearch(
        scorers={
            "lm": ScorerOptions(path=str(tmp_path / "run")),
            "prior": ScorerOptions(path=str(folder / "prior.safetensors")),
        }
    )
    assert alone.scorer(named).names == ("lm", "length", "prior")


def test_the_llm_of_a_speech_llm(tmp_path):
    save_tiny(tmp_path)
    assert ExternalModels(None, UNITS, CPU).lm(str(tmp_path)).name == "lm"


def test_more_labels_than_the_recogniser_has(tmp_path):
    more = tiny_units()
    more.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]", "[MORE]"]})
    units = type(more)(more.tokenizer)
    assert units.size == SIZE + 1
    save_tiny_llm(tmp_path, units=units)
    scorer = ExternalModels(None, UNITS, CPU).lm(str(tmp_path))
    assert scorer.log_probs(scorer.start(1), torch.tensor([0])).shape == (1, SIZE + 1)


def test_unequal_units_lead_to_delayed_fusion(tmp_path):
    save_tiny_llm(tmp_path, units=tiny_units("pieces"))
    with pytest.raises(ModelError, match=r"other label units .* delayed fusion is the way"):
        ExternalModels(None, UNITS, CPU).lm(str(tmp_path))


def test_any_units_for_delayed_fusion(folder, tmp_path):
    models, options = ExternalModels(folder, UNITS, CPU), delayed(str(tmp_path), text_form="lower")
    own = models.reader(DelayedFusionSearch())
    assert own.equal
    assert own is models.reader(delayed(str(folder / "lm")))
    save_tiny_llm(tmp_path, units=tiny_bpe())
    other = models.reader(options)
    assert not other.equal
    assert other.tokens(tuple(UNITS.encode("a b"))) == tuple(tiny_bpe().encode("a b"))
    assert models.prior(DelayedFusionSearch()) is not None
    assert ExternalModels(None, UNITS, CPU).prior(DelayedFusionSearch()) is None
    with pytest.raises(ModelError, match=r"no lm/; name one with decoding\.scorers\.lm\.path"):
        ExternalModels(None, UNITS, CPU).reader(DelayedFusionSearch())
    with pytest.raises(ModelError, match=r"lm\.arpa: an n-gram, .* use it in rescoring"):
        models.reader(delayed(str(tmp_path / "lm.arpa")))


def test_the_lm_of_delayed_fusion_is_probed_for_all_uses_at_once(folder, monkeypatch):
    asked, real = [], probe._probe
    monkeypatch.setattr(probe, "_probe", lambda llm, uses, found: (asked.append([*uses]), real(llm, uses, found)))
    models = ExternalModels(folder, UNITS, CPU)
    models.reader(DelayedFusionSearch())
    assert asked == [["rows", "cache", "trees"]]


def test_an_lm_that_cannot_write_what_the_recogniser_writes(tmp_path):
    save_tiny_llm(tmp_path, units=character_units(["AN OLD LM OF CAPITALS"], "as_is"))
    message = r"it cannot write 26 of the recogniser's 26 letters, as 'a'; choose another text_form"
    with pytest.raises(ModelError, match=message):
        ExternalModels(None, UNITS, CPU).reader(delayed(str(tmp_path)))


def test_partners_that_are_missing(tmp_path, folder):
    with pytest.raises(ModelError, match=r"no lm/; name one with decoding\.scorers\.lm\.path"):
        ExternalModels(tmp_path, UNITS, CPU).lm(None)
    with pytest.raises(ModelError, match=r"decoding\.scorers\.lm"):
        ExternalModels(None, UNITS, CPU).lm(None)
    with pytest.raises(ModelError, match="nowhere"):
        ExternalModels(None, UNITS, CPU).lm(str(tmp_path / "nowhere"))
    lm = str(folder / "lm")
    with pytest.raises(ModelError, match=r"decoding\.scorers\.prior"):
        ExternalModels(None, UNITS, CPU).scorer(
            ShallowFusionSearch(scorers={"lm": ScorerOptions(path=lm), "prior": ScorerOptions(scale=-0.2)})
        )
    with pytest.raises(ModelError, match=r"prior\.safetensors: no such file .* kikitori prior"):
        ExternalModels(tmp_path, UNITS, CPU).scorer(
            ShallowFusionSearch(scorers={"lm": ScorerOptions(path=lm), "prior": ScorerOptions(scale=-0.2)})
        )
    with pytest.raises(ModelError, match="no such file"):
        ExternalModels(folder, UNITS, CPU).scorer(
            ShallowFusionSearch(scorers={"prior": ScorerOptions(path=str(tmp_path / "none.safetensors"))})
        )


def test_an_acoustic_model_is_no_lm(tmp_path):
    save_tiny(tmp_path, tiny_acoustic_model())
    with pytest.raises(ModelError, match="an acoustic model has no LLM"):
        ExternalModels(None, UNITS, CPU).lm(str(tmp_path))


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    file = tmp_path_factory.mktemp("ngram") / "lm.arpa"
    write_ngram(file, UNITS, TEXTS, order=3)
    return str(file)


def test_an_n_gram_beside_the_lm_instead_of_it_or_alone(folder, arpa):
    models, alone = ExternalModels(folder, UNITS, CPU), ExternalModels(None, UNITS, CPU)
    assert models.scorer(ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=arpa)})).names == (
        "lm",
        "ngram",
        "length",
        "prior",
    )
    without = ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=arpa), "lm": ScorerOptions(scale=0.0)})
    assert models.scorer(without).names == ("ngram", "length", "prior")
    assert models.scorer(ShallowFusionSearch(scorers={"lm": ScorerOptions(path=arpa)})).names == (
        "lm",
        "length",
        "prior",
    )
    assert models.scorer(
        ShallowFusionSearch(scorers={"lm": ScorerOptions(path=arpa), "ngram": ScorerOptions(path=arpa)})
    ).names == ("lm", "ngram", "length", "prior")
    assert alone.scorer(ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=arpa)})).names == ("ngram", "length")
    assert isinstance(alone.lm(arpa), NGramScorer)
    assert alone.lm(arpa) is alone.lm(arpa)  # loaded once
    assert alone.max_labels(ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=arpa)})) is None
    assert (
        models.max_labels(ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=arpa)}))
        == models.lm(None).max_labels
    )
    search = RescoringSearch(scorers={"n": ScorerOptions(path=arpa, scale=0.1)})
    (scorer,) = models.sequence_scorers(search)
    assert scorer is models.sequence_scorers(search)[0]


def test_an_n_gram_that_is_missing_or_over_other_words(tmp_path):
    with pytest.raises(ModelError, match=r"no such file with an n-gram.*kikitori ngram"):
        ExternalModels(None, UNITS, CPU).scorer(
            ShallowFusionSearch(scorers={"lm": ScorerOptions(path=str(tmp_path / "lm.arpa"))})
        )
    write_ngram(tmp_path / "lm.arpa", tiny_bpe(), TEXTS, order=2)
    for options in (
        ShallowFusionSearch(scorers={"ngram": ScorerOptions(path=str(tmp_path / "lm.arpa"))}),
        ShallowFusionSearch(scorers={"lm": ScorerOptions(path=str(tmp_path / "lm.arpa"))}),
    ):
        with pytest.raises(ModelError, match=r"lm\.arpa: the n-gram is over other words"):
            ExternalModels(None, UNITS, CPU).scorer(options)


def test_a_prior_of_other_labels(folder, tmp_path):
    others = vocabulary_fingerprint(tiny_units("pieces"))
    save_prior(tmp_path / "p.safetensors", count_prior([[5, 6]], SIZE), vocabulary=others)
    with pytest.raises(ModelError, match=r"p\.safetensors: a prior of other labels, though as many"):
        ExternalModels(folder, UNITS, CPU).scorer(
            ShallowFusionSearch(scorers={"prior": ScorerOptions(path=str(tmp_path / "p.safetensors"))})
        )
