"""Whisper folders of transformers: what is read of them, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import is_recogniser, load_model
from kikitori.model.safety.config import quiet_transformers
from kikitori.types import TrainedOn
from tests.refusal import refused
from tests.tiny import save_tiny, save_tiny_whisper, tiny_units, tiny_waveforms, tiny_whisper


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A multilingual Whisper folder that stays as it is."""
    folder = tmp_path_factory.mktemp("saved") / "whisper"
    save_tiny_whisper(folder, tiny_whisper(multilingual=True))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "whisper")


def edit(file, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_network_units_and_limits(saved):
    loaded = load_model(saved)
    model = loaded.model
    assert isinstance(model, EncoderDecoder)
    assert not model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    whisper = tiny_whisper(multilingual=True)
    expected = whisper.state_dict()
    parts = {"encoder": model.acoustic.encoder.model, "decoder": model.network}
    for part, module in parts.items():
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, expected[f"model.{part}.{name}"]), name
    assert torch.equal(model.output.weight, expected["proj_out.weight"])
    assert loaded.units.size == 406
    assert loaded.units.decode([400, 401, 403, 405, *loaded.units.encode(" the fox"), 2]) == "the fox"
    assert loaded.trained_on == TrainedOn(18.0, 2.0, None, "window")
    assert (model.autoregressive, model.speech_llm, model.reads_drafts) == (model, None, False)
    assert not is_recogniser(saved)  # it can still be what another model's encoder starts from


def test_an_english_model(tmp_path):
    save_tiny_whisper(tmp_path)
    assert load_model(tmp_path).trained_on == TrainedOn(19.0, 2.0, "en", "window")
    assert load_model(tmp_path, language="en").trained_on.language == "en"
    with pytest.raises(ModelError, match="does not know the language 'ja'; use one of en"):
        load_model(tmp_path, language="ja")


@pytest.mark.parametrize("language", ["ja", "JA", "Japanese", "<|ja|>"])
@pytest.mark.parametrize("where", ["asked", "config"])
def test_the_language_that_is_asked_for(folder, language, where):
    if where == "config":
        edit(folder / "generation_config.json", language=language)
    loaded = load_model(folder, language=language if where == "asked" else None)
    assert loaded.trained_on.language == "ja"
    with torch.inference_mode():
        encoded = loaded.model.acoustic.encode(*pad_waveforms(tiny_waveforms(5)))
        prompts = loaded.model.decoder(encoded).prompts.tolist()
    assert prompts == [[400, 402, 403, 405]] * 5


def test_languages_that_no_model_knows(folder, tmp_path):
    with pytest.raises(ModelError, match=r"does not know the language 'xx'; use one of en, ja"):
        load_model(folder, language="xx")
    save_tiny(tmp_path / "own")
    assert load_model(tmp_path / "own", language="en").trained_on.language == "en"
    with pytest.raises(ModelError, match="the model writes 'en', not 'ja'; leave --language out"):
        load_model(tmp_path / "own", language="ja")


def test_an_encoder_alone(folder):
    whisper = tiny_whisper()
    (folder / "model.safetensors").unlink()
    with quiet_transformers():
        whisper.model.encoder.save_pretrained(folder)
    refused(folder, "a speech encoder alone ('whisper') writes no text")


def test_weights_without_the_decoder(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".decoder." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "a speech encoder alone ('whisper') writes no text")


def test_weights_that_are_missing_or_no_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    name = "model.decoder.layers.1.encoder_attn.k_proj.weight"
    spoilt = {**weights, name: torch.full_like(weights[name], torch.nan)}
    save_file(spoilt, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "encoder_attn.k_proj.weight")
    weights.pop(name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, f"do not fit config.json at {name}")


def test_pickles_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin is a pickle")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("decoder_start_token_id", ...),
        ("no_timestamps_token_id", 406),
        ("eos_token_id", "2"),
        ("eos_token_id", True),
        ("suppress_tokens", [3, -1]),
        ("begin_suppress_tokens", [10**9]),
        ("lang_to_id", {"<|en|>": 500}),
        ("task_to_id", {}),
    ],
)
def test_labels_that_the_decoder_does_not_have(folder, entry, value):
    edit(folder / "generation_config.json", **{entry: value})
    refused(folder, f"generation_config.json has no label of the decoder as {entry}")


def test_the_tokenizer_of_another_model(folder):
    tiny_units().save(folder)
    edit(folder / "generation_config.json", eos_token_id=3)
    refused(folder, f"the tokenizer has {tiny_units().size} labels, the model 406")
