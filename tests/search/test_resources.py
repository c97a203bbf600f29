import pytest
import torch

from kikitori.errors import ModelError
from kikitori.scorers.ngram import NGramScorer
from kikitori.scorers.options import LMOptions
from kikitori.scorers.prior import count_prior, save_prior
from kikitori.search.options import DelayedFusionSearch, ShallowFusionSearch
from kikitori.search.resources import Partners
from kikitori.text.units import character_units, vocabulary_fingerprint
from kikitori.workflows.ngram import write_ngram
from tests.tiny import TEXTS, save_tiny, save_tiny_llm, tiny_acoustic_model, tiny_bpe, tiny_units

CPU = torch.device("cpu")
UNITS = tiny_units()
SIZE = UNITS.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_tiny_llm(path / "lm")
    save_prior(path / "prior.safetensors", count_prior([[5, 6]], SIZE))
    return path


def test_its_own_lm_and_prior(folder, tmp_path):
    partners = Partners(folder, UNITS, CPU)
    assert partners.scorer(ShallowFusionSearch()).names == ("lm", "length", "prior")
    assert partners.lm(None) is partners.lm(str(folder / "lm"))  # loaded once
    save_tiny_llm(tmp_path / "run" / "model", "llama")
    alone = Partners(None, UNITS, CPU)
    assert alone.scorer(ShallowFusionSearch(lm=str(tmp_path / "run"))).names == ("lm", "length")
    named = ShallowFusionSearch(lm=str(tmp_path / "run"), prior=str(folder / "prior.safetensors"))
    assert alone.scorer(named).names == ("lm", "length", "prior")


def test_the_llm_of_a_speech_llm(tmp_path):
    save_tiny(tmp_path)
    assert Partners(None, UNITS, CPU).lm(str(tmp_path)).name == "lm"


def test_more_labels_than_the_recogniser_has(tmp_path):
    more = tiny_units()
    more.tokenizer.add_special_tokens({"additional_special_tokens": ["[SEP]", "[MORE]"]})
    units = type(more)(more.tokenizer)
    assert units.size == SIZE + 1
    save_tiny_llm(tmp_path, units=units)
    scorer = Partners(None, UNITS, CPU).lm(str(tmp_path))
    assert scorer.log_probs(scorer.start(1), torch.tensor([0])).shape == (1, SIZE + 1)


def test_unequal_units_lead_to_delayed_fusion(tmp_path):
    save_tiny_llm(tmp_path, units=tiny_units("pieces"))
    with pytest.raises(ModelError, match=r"other label units .* delayed fusion is the way"):
        Partners(None, UNITS, CPU).lm(str(tmp_path))


def test_any_units_for_delayed_fusion(folder, tmp_path):
    partners, options = Partners(folder, UNITS, CPU), LMOptions(str(tmp_path), text_form="lower")
    own = partners.reader(None)
    assert own.equal
    assert own is partners.reader(LMOptions(str(folder / "lm")))
    save_tiny_llm(tmp_path, units=tiny_bpe())
    other = partners.reader(options)
    assert not other.equal
    assert other.tokens(tuple(UNITS.encode("a b"))) == tuple(tiny_bpe().encode("a b"))
    assert partners.prior(DelayedFusionSearch()) is not None
    assert Partners(None, UNITS, CPU).prior(DelayedFusionSearch()) is None
    with pytest.raises(ModelError, match=r"no lm/; name one with decoding\.lm\.path"):
        Partners(None, UNITS, CPU).reader(None)
    with pytest.raises(ModelError, match=r"lm\.arpa: an n-gram, .* use it in rescoring"):
        partners.reader(LMOptions(str(tmp_path / "lm.arpa")))


def test_an_lm_that_cannot_write_what_the_recogniser_writes(tmp_path):
    save_tiny_llm(tmp_path, units=character_units(["AN OLD LM OF CAPITALS"], "as_is"))
    message = r"it cannot write 26 of the recogniser's 26 letters, as 'a'; choose another text_form"
    with pytest.raises(ModelError, match=message):
        Partners(None, UNITS, CPU).reader(LMOptions(str(tmp_path)))


def test_partners_that_are_missing(tmp_path, folder):
    with pytest.raises(ModelError, match=r"no lm/; name one with decoding\.lm"):
        Partners(tmp_path, UNITS, CPU).lm(None)
    with pytest.raises(ModelError, match=r"decoding\.lm"):
        Partners(None, UNITS, CPU).lm(None)
    with pytest.raises(ModelError, match="nowhere"):
        Partners(None, UNITS, CPU).lm(str(tmp_path / "nowhere"))
    lm = str(folder / "lm")
    with pytest.raises(ModelError, match=r"decoding\.prior"):
        Partners(None, UNITS, CPU).scorer(ShallowFusionSearch(lm=lm, prior_scale=0.2))
    with pytest.raises(ModelError, match=r"prior\.safetensors: no such file .* kikitori prior"):
        Partners(tmp_path, UNITS, CPU).scorer(ShallowFusionSearch(lm=lm, prior_scale=0.2))
    with pytest.raises(ModelError, match="no such file"):
        Partners(folder, UNITS, CPU).scorer(ShallowFusionSearch(prior=str(tmp_path / "none.safetensors")))


def test_an_acoustic_model_is_no_lm(tmp_path):
    save_tiny(tmp_path, tiny_acoustic_model())
    with pytest.raises(ModelError, match="an acoustic model has no LLM"):
        Partners(None, UNITS, CPU).lm(str(tmp_path))


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    file = tmp_path_factory.mktemp("ngram") / "lm.arpa"
    write_ngram(file, UNITS, TEXTS, order=3)
    return str(file)


def test_an_n_gram_beside_the_lm_instead_of_it_or_alone(folder, arpa):
    partners, alone = Partners(folder, UNITS, CPU), Partners(None, UNITS, CPU)
    assert partners.scorer(ShallowFusionSearch(ngram=arpa)).names == ("lm", "ngram", "length", "prior")
    without = ShallowFusionSearch(ngram=arpa, llm_scale=0.0)
    assert partners.scorer(without).names == ("ngram", "length", "prior")
    assert partners.scorer(ShallowFusionSearch(lm=arpa)).names == ("lm", "length", "prior")
    assert partners.scorer(ShallowFusionSearch(lm=arpa, ngram=arpa)).names == ("lm", "ngram", "length", "prior")
    assert alone.scorer(ShallowFusionSearch(ngram=arpa)).names == ("ngram", "length")
    assert isinstance(alone.lm(arpa), NGramScorer)
    assert alone.lm(arpa) is alone.lm(arpa)  # loaded once
    assert alone.max_labels(ShallowFusionSearch(ngram=arpa)) is None
    assert partners.max_labels(ShallowFusionSearch(ngram=arpa)) == partners.lm(None).max_labels
    judge = partners.any_judge(LMOptions(arpa))
    assert judge is partners.any_judge(LMOptions(arpa))


def test_an_n_gram_that_is_missing_or_over_other_words(tmp_path):
    with pytest.raises(ModelError, match=r"no such file with an n-gram.*kikitori ngram"):
        Partners(None, UNITS, CPU).scorer(ShallowFusionSearch(lm=str(tmp_path / "lm.arpa")))
    write_ngram(tmp_path / "lm.arpa", tiny_bpe(), TEXTS, order=2)
    for options in (
        ShallowFusionSearch(ngram=str(tmp_path / "lm.arpa")),
        ShallowFusionSearch(lm=str(tmp_path / "lm.arpa")),
    ):
        with pytest.raises(ModelError, match=r"lm\.arpa: the n-gram is over other words"):
            Partners(None, UNITS, CPU).scorer(options)


def test_a_prior_of_other_labels(folder, tmp_path):
    others = vocabulary_fingerprint(tiny_units("pieces"))
    save_prior(tmp_path / "p.safetensors", count_prior([[5, 6]], SIZE), vocabulary=others)
    with pytest.raises(ModelError, match=r"p\.safetensors: a prior of other labels, though as many"):
        Partners(folder, UNITS, CPU).scorer(ShallowFusionSearch(prior=str(tmp_path / "p.safetensors")))
