import pytest
import torch

from kikitori.errors import ModelError
from kikitori.scorers.language_model import language_model, load_language_model
from kikitori.scorers.options import LMOptions
from tests.tiny import save_tiny, save_tiny_llm, tiny_bpe, tiny_llm, tiny_units


def test_a_text_is_scored_behind_bos_with_its_end():
    units = tiny_units()
    lm = language_model(tiny_llm(vocab_size=units.size), units, LMOptions("here"))
    labels = units.encode("ab")
    assert lm.start == (units.bos_id,)
    with torch.no_grad():
        logits = lm.llm(torch.tensor([[units.bos_id, *labels]])).logits[0].log_softmax(dim=-1)
    expected = sum(float(logits[i, label]) for i, label in enumerate([*labels, units.eos_id]))
    assert lm.log_probs([[labels]]).scores == [[pytest.approx(expected, abs=1e-5)]]


def test_units_without_bos_begin_with_eos():
    units = tiny_bpe()
    units.bos_id = None
    assert language_model(tiny_llm(vocab_size=units.size), units, LMOptions("here")).start == (units.eos_id,)


def test_a_prompt_stands_between_bos_and_text():
    units = tiny_units()
    lm = language_model(tiny_llm(vocab_size=units.size), units, LMOptions("here", prompt="ba"))
    assert lm.start == (units.bos_id, *units.encode("ba"))


def test_texts_get_the_form_that_the_lm_reads():
    units = tiny_bpe()
    lm = language_model(tiny_llm(vocab_size=units.size), units, LMOptions("here", text_form="lower"))
    assert lm.units.encode("A B") == units.encode("a b")


def test_a_limit_of_positions(tmp_path):
    save_tiny_llm(tmp_path)
    lm = load_language_model(LMOptions(str(tmp_path), prompt="ab"))
    assert lm.most_labels == lm.llm.config.max_position_embeddings - len(lm.start)


def test_the_llm_of_a_speech_llm_is_one_too(tmp_path):
    model = save_tiny(tmp_path)
    lm = load_language_model(LMOptions(str(tmp_path)))
    assert torch.equal(lm.llm.get_input_embeddings().weight, model.llm.get_input_embeddings().weight)


def test_a_run_stands_for_its_model(tmp_path):
    save_tiny_llm(tmp_path / "model")
    run, model = (load_language_model(LMOptions(str(path))) for path in (tmp_path, tmp_path / "model"))
    assert run.log_probs([[[3, 4]]]).scores == model.log_probs([[[3, 4]]]).scores


def test_a_folder_without_an_llm(tmp_path):
    with pytest.raises(ModelError, match=r"config.json is missing"):
        load_language_model(LMOptions(str(tmp_path)))
