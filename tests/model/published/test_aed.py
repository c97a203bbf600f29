"""Folders of encoder-decoders beside Whisper: what is read of them, what is refused, and recognition with them."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CohereAsrProcessor, PreTrainedTokenizerFast

from kikitori.errors import ConfigError, ModelError
from kikitori.loading import load
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import is_recogniser, load_model, save_model
from kikitori.model.published.convert import convert_heads
from kikitori.model.published.part import PARTS
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import PLAIN
from kikitori.text.unit_training import character_units
from kikitori.types import TrainedOn
from kikitori.workflows.machine.models import describe
from tests.aeds import AEDS, LANGUAGES, tiny_speech_to_text
from tests.commands import call, one_line
from tests.crossed import crossed
from tests.model.published.test_nue_asr import hub_cache
from tests.refusal import refused
from tests.tiny import shake, tiny_waveforms

WAVEFORMS = tiny_waveforms(5)
CHARACTERS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")
KINDS = {
    "moonshine": "Moonshine",
    "moonshine_streaming": "Moonshine Streaming",
    "speech_to_text": "Speech2Text",
    "cohere_asr": "Cohere ASR",
    "canary": "Canary",
}
TRAINED = {
    "moonshine": TrainedOn(39 / 30, 30.0, None, "window"),
    "moonshine_streaming": TrainedOn(39 / 4, 4.0, None, "window"),
    "speech_to_text": TrainedOn(39 / 30, 30.0, None, "window"),
    "cohere_asr": TrainedOn(30 / 35, 35.0, "en", "window"),
    "canary": TrainedOn(31 / 40, 40.0, "de", "window"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One of each family, which stays as it is."""
    root = tmp_path_factory.mktemp("aeds")
    for name, make in AEDS.items():
        make().save(root / name)
    return root


@pytest.fixture(params=[*AEDS])
def family(request):
    return request.param


@pytest.fixture
def folder(folders, family, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(folders / family, tmp_path / family)


def opened(folder, family):
    return load_model(folder, language=LANGUAGES.get(family))


def reads(folder, family, *expected):
    refused(folder, *expected, load=lambda each: opened(each, family))


def test_network_units_and_limits(folders, family):
    loaded, aed = opened(folders / family, family), AEDS[family]()
    model = loaded.model
    assert isinstance(model, EncoderDecoder)
    assert not model.training
    expected = aed.network.state_dict()
    for part, module in {"encoder": model.acoustic.encoder.model, "decoder": model.network}.items():
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, expected[f"model.{part}.{name}"]), name
    assert loaded.trained_on == TRAINED[family]
    recognizer = load(folders / family, device="cpu", language=LANGUAGES.get(family))
    assert recognizer.longest == 16000 * TRAINED[family].max_seconds
    assert not is_recogniser(folders / family)  # it can still be what another model's encoder starts from
    assert describe("here", folders / family).kind == KINDS[family]


def test_transcripts_are_the_same_in_any_batch_and_by_hub_id(folders, family, tmp_path, monkeypatch):
    settings = {"device": "cpu", "guards": PLAIN, "language": LANGUAGES.get(family)}
    recognizer = load(folders / family, **settings)
    together = [*recognizer.transcribe_many(WAVEFORMS)]
    assert together == [recognizer.transcribe(waveform) for waveform in WAVEFORMS]
    assert len({each.text for each in together}) > 2
    hub_cache(tmp_path / "home", {"main": folders / family})
    (tmp_path / "home" / "hub" / "models--rinna--nue-asr").rename(tmp_path / "home" / "hub" / "models--owner--name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    assert load("owner/name", **settings).transcribe(WAVEFORMS[1]).text == together[1].text


def test_an_encoder_alone(folder, family):
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "decoder." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    reads(folder, family, "a speech encoder alone (", "writes no text")


def test_weights_that_are_missing_or_no_numbers(folder, family):
    weights = load_file(folder / "model.safetensors")
    name = "model.decoder.layers.1.encoder_attn.k_proj.weight"
    nemo = "model.transf_decoder._decoder.layers.1.second_sub_layer.key_net.weight"  # as Cohere's are stored
    stored = name if name in weights else nemo
    spoilt = {**weights, stored: torch.full_like(weights[stored], torch.nan)}
    save_file(spoilt, folder / "model.safetensors", metadata={"format": "pt"})
    reads(folder, family, "encoder_attn.k_proj.weight")
    weights.pop(stored)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reads(folder, family, f"do not fit config.json at {name}")


WRONG = {"decoder_start_token_id": 10**9, "eos_token_id": "2", "suppress_tokens": [-1]}


@pytest.mark.parametrize(("family", "entry"), crossed([*AEDS], [*WRONG]))
def test_labels_that_the_decoder_does_not_have(folder, family, entry):
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {entry: WRONG[entry]}))
    reads(folder, family, f"generation_config.json has no label of the decoder as {entry}")


def test_files_that_are_missing_and_the_tokenizer_of_another_model(folder, family):
    (folder / "generation_config.json").rename(folder / "kept.json")
    reads(folder, family, "generation_config.json")
    (folder / "kept.json").rename(folder / "generation_config.json")
    for file in folder.glob("*token*"):
        file.unlink()
    units = character_units([chr(letter) for letter in range(0x4E00, 0x4E00 + 600)], "as_is")
    units.save(folder)
    told = "no '" if family in LANGUAGES else f"{units.size} labels, the model "
    reads(folder, family, f"the tokenizer has {told}")


def test_languages_of_models_that_are_told_none(folders, tmp_path):
    with pytest.raises(ModelError, match="the model is told no language; leave --language out"):
        load_model(folders / "moonshine", language="en")
    result = call("transcribe", tmp_path / "a.wav", "--model", folders / "moonshine", "--language", "en")
    assert "the model is told no language" in one_line(result)


@pytest.mark.parametrize("told", [name for name in LANGUAGES if name in AEDS])
def test_languages_of_models_that_must_be_told(folders, told, tmp_path):
    for name in ("ja", "Japanese") if told == "cohere_asr" else ("en", "English"):
        model = load_model(folders / told, language=name).model
        expected = prompt_of(folders, told, name[:2].lower())
        assert model.rules.prompt_in(model.rules.languages[model.language]) == expected
    with pytest.raises(ModelError, match="the model must be told the language; give --language, one of "):
        load_model(folders / told)
    with pytest.raises(ModelError, match="the model does not know the language 'la'; "):
        load_model(folders / told, language="la")
    with pytest.raises(ModelError, match=r"the tokenizer has no '<\|fr\|>'; copy the tokenizer files"):
        load_model(folders / told, language="fr")
    folder = shutil.copytree(folders / told, tmp_path / told)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language": "en", "decoder_start_token_id": 5}))
    model = load_model(folder).model
    assert model.language == "en"
    assert model.rules.prompt_in(model.rules.languages["en"]) == [5, *prompt_of(folders, told, "en")]


def test_speech_to_text_of_several_languages(tmp_path):
    aed = tiny_speech_to_text(["de", "fr"])
    aed.save(tmp_path)
    with pytest.raises(ModelError, match="the model must be told the language; give --language, one of de, fr"):
        load_model(tmp_path)
    recognizer = load(tmp_path, device="cpu", guards=PLAIN, language="French")
    french = aed.units.special_id("<lang:fr>")
    assert recognizer.loaded.model.rules.languages == {"de": aed.units.special_id("<lang:de>"), "fr": french}
    with torch.inference_mode(), quiet_transformers():
        theirs = [aed.generated(waveform, [2, french]) for waveform in WAVEFORMS]
    found = recognizer.recognize(WAVEFORMS)
    assert [each.labels for each in found] == theirs
    assert {each.language for each in found} == {"fr"}


def prompt_of(folders, told, code):
    """As transformers' processor for Cohere makes it; Canary's is in a template of its folder."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders / told)
    labels = CohereAsrProcessor.get_decoder_prompt_ids(SimpleNamespace(tokenizer=tokenizer), code)
    return labels if told == "cohere_asr" else labels[1:]


def test_encoder_decoders_that_are_not_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "speech-encoder-decoder"}))
    refused(tmp_path, "model type 'speech-encoder-decoder' is no recogniser", "or one of whisper, moonshine, ")


def test_a_short_window_is_whispers(folders, family):
    with pytest.raises(ConfigError, match="the model has no Whisper decoder"):
        load(folders / family, window="speech", language=LANGUAGES.get(family))


def heads_on(base, family, *, moved):
    """A run of CTC heads on a base's encoder, whose last layer has `moved` or not."""
    torch.manual_seed(1)
    encoder = SpeechEncoder.from_pretrained(base)
    if moved:
        shake(encoder.layers[-1], 3, 0.05)
    config = AcousticModelConfig(encoder_config=encoder.config, ctc_layers=[1, 2], num_units=CHARACTERS.size)
    run = base.parent / f"{family}-run-{moved}"
    save_model(
        run, AcousticModel(config, encoder=encoder).eval(), CHARACTERS, TrainedOn(20.0, 2.0, LANGUAGES.get(family))
    )
    return run


@pytest.mark.parametrize(("family", "moved"), crossed([*AEDS], (False, True)))
def test_heads_on_the_encoder_are_used_with_the_decoder(folders, family, moved, monkeypatch):
    monkeypatch.setenv(PARTS, str(folders))
    run, part = heads_on(folders / family, family, moved=moved), folders / f"{family}-part-{moved}"
    convert_heads(run, f"someone/{family}", part)
    recognizer = load(part, device="cpu", guards=PLAIN)
    model = recognizer.loaded.model
    assert (model.acoustic.encoder is model.encoder) is not moved
    plain = load(folders / family, device="cpu", guards=PLAIN, language=LANGUAGES.get(family))
    greedy, alone = recognizer.recognize(WAVEFORMS, "greedy"), load(run, device="cpu", guards=PLAIN)
    assert [each.labels for each in greedy] == [each.labels for each in plain.recognize(WAVEFORMS)]
    found, expected = recognizer.ctc_log_probs(WAVEFORMS), alone.ctc_log_probs(WAVEFORMS)
    assert found[1].tolist() == expected[1].tolist()
    torch.testing.assert_close(found[0], expected[0], atol=2e-3, rtol=0)  # the part is in float16
    together = recognizer.recognize(WAVEFORMS[:2], "joint")
    assert recognizer.recognize(WAVEFORMS[1:2], "joint")[0].labels == together[1].labels
    assert [each.text for each in together] != [each.text for each in greedy[:2]]


def test_a_base_of_other_weights(folders, tmp_path, monkeypatch):
    family = "moonshine"
    monkeypatch.setenv(PARTS, str(folders))
    convert_heads(heads_on(folders / family, family, moved=False), f"someone/{family}", tmp_path / "part")
    aed = AEDS[family]()
    shake(aed.network, 5, 0.01)
    with quiet_transformers():
        aed.save(tmp_path / "other" / family)
    monkeypatch.setenv(PARTS, str(tmp_path / "other"))
    refused(tmp_path / "part", f"its base someone/{family} has other weights")
