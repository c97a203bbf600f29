import pytest
import torch

from kikitori.decoding.options import ShallowFusionSearch
from kikitori.decoding.partners import Partners
from kikitori.decoding.prior import count_prior, save_prior
from kikitori.errors import ModelError
from tests.tiny import save_tiny, save_tiny_llm, tiny_acoustic_model, tiny_units

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
    assert partners.scorer(ShallowFusionSearch()).names == ("llm", "length", "prior")
    assert partners.lm(None) is partners.lm(str(folder / "lm"))  # loaded once
    save_tiny_llm(tmp_path / "run" / "model", "llama")
    alone = Partners(None, UNITS, CPU)
    assert alone.scorer(ShallowFusionSearch(lm=str(tmp_path / "run"))).names == ("llm", "length")
    named = ShallowFusionSearch(lm=str(tmp_path / "run"), prior=str(folder / "prior.safetensors"))
    assert alone.scorer(named).names == ("llm", "length", "prior")


def test_the_llm_of_a_speech_llm(tmp_path):
    save_tiny(tmp_path)
    assert Partners(None, UNITS, CPU).lm(str(tmp_path)).name == "llm"


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
