"""A speech LLM as a small folder that names its Whisper and its LLM."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kikitori.errors import KikitoriWarning, ModelError
from kikitori.loading import load
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapters.lora import UPDATE, Lora, attach_lora, merged_copy, save_lora
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import load_llm, load_model, save_model
from kikitori.model.heads import ctc_loss
from kikitori.model.published.convert import convert_speech_llm
from kikitori.model.published.part import PARTS
from kikitori.recognizer import PLAIN
from kikitori.scorers.options import ScorerOptions
from kikitori.search.options import JointSearch
from kikitori.text.unit_training import character_units
from tests.tiny import (
    TRAINED_ON,
    save_tiny_llm,
    save_tiny_whisper,
    shake,
    tiny_bpe,
    tiny_speech_llm,
    tiny_units,
    tiny_waveforms,
    tiny_whisper,
)

WAVEFORMS = tiny_waveforms(3)
LETTERS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")


def trained(whisper, llm):
    """A speech LLM whose last encoder layer, bridge and LoRA have learnt; with adapters, and merged."""
    encoder = SpeechEncoder.from_pretrained(whisper)
    shake(encoder.layers[-1], 3, 0.05)
    acoustic = AcousticModel(
        AcousticModelConfig(encoder_config=encoder.config, ctc_layers=[2], num_units=tiny_units().size), encoder=encoder
    )
    return adapted(tiny_speech_llm(acoustic=acoustic, body=llm, bridge="conv"))


def adapted(model):
    """The model with LoRA that has learnt."""
    model.llm = attach_lora(model.llm, Lora(rank=2, targets=["q_proj", "down_proj"]))
    for name, parameter in model.llm.named_parameters():
        if UPDATE in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The bases, a run as training exports it, and the part made of it."""
    root = tmp_path_factory.mktemp("parts")
    save_tiny_whisper(root / "whisper-tiny", tiny_whisper())
    model = trained(root / "whisper-tiny", save_tiny_llm(root / "llm", "llama"))
    save_lora(root / "run" / "model" / "adapter", model.llm)
    model.llm = merged_copy(model.llm)
    save_model(root / "run" / "model", model, tiny_units(), TRAINED_ON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(root))
        convert_speech_llm(root / "run", "someone/whisper-tiny", "someone/llm", root / "part")
    return root


@pytest.fixture(scope="module")
def with_letters(folders):
    """A part whose CTC head writes characters, and whose LLM pieces of words."""
    units, root = tiny_bpe(), folders / "letters"
    encoder = SpeechEncoder.from_pretrained(folders / "whisper-tiny")
    heads = AcousticModel(
        AcousticModelConfig(encoder_config=encoder.config, ctc_layers=[2], num_units=LETTERS.size), encoder=encoder
    )
    save_tiny_llm(root / "llm", "llama", units=units)
    model = adapted(tiny_speech_llm(acoustic=heads, body=load_llm(root / "llm"), bridge="conv", units=units))
    save_lora(root / "run" / "adapter", model.llm)
    model.llm = merged_copy(model.llm)
    save_model(root / "run", model, units, TRAINED_ON, LETTERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(root))
        (root / "whisper-tiny").symlink_to(folders / "whisper-tiny")
        convert_speech_llm(root / "run", "a/whisper-tiny", "b/llm", root / "part")
        return load(root / "part", device="cpu", guards=PLAIN)


@pytest.fixture(autouse=True)
def _parts(folders, monkeypatch):
    monkeypatch.setenv(PARTS, str(folders))


def test_a_part_holds_what_training_added_and_names_the_rest(folders):
    part = folders / "part"
    names = {*load_file(part / "model.safetensors")}
    assert {name.split(".")[0] for name in names} == {"acoustic", "bridge"}
    assert not any("layers.0" in name or ".conv1" in name for name in names if "encoder" in name)
    assert all(
        tensor.dtype == torch.float16 for tensor in load_file(part / "adapter" / "adapter_model.safetensors").values()
    )
    text = (part / "config.json").read_text()
    assert {kind: base["name"] for kind, base in json.loads(text)["base"].items()} == {
        "encoder": "someone/whisper-tiny",
        "llm": "someone/llm",
    }
    assert str(folders) not in text


def test_it_writes_what_the_run_writes(folders):
    part, run = (load_model(folders / name).model for name in ("part", "run/model"))
    ours, theirs = part.state_dict(), run.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():  # the part is in float16
        torch.testing.assert_close(ours[name], tensor, atol=2e-3, rtol=1e-3, msg=name)
    texts = [
        [best.text for best in load(folders / name, device="cpu", guards=PLAIN).recognize(WAVEFORMS, "greedy")]
        for name in ("part", "run/model")
    ]
    assert texts[0] == texts[1]
    assert any(texts[0])


def test_the_llm_is_searched_with_ctc_over_letters(with_letters):
    assert with_letters.loaded.ctc_units.size == LETTERS.size
    assert with_letters.loaded.units.size == tiny_bpe().size
    for search in ("greedy", "joint", "speculative", "ctc_greedy"):
        together = with_letters.recognize(WAVEFORMS, search)
        alone = [with_letters.recognize([waveform], search)[0] for waveform in WAVEFORMS]
        assert [each.text for each in together] == [each.text for each in alone]
    options = JointSearch(beam=4, nbest=4, scorers={"ctc": ScorerOptions(scale=0.5)})
    batch = with_letters.encode(WAVEFORMS)
    with torch.inference_mode():
        log_probs, lengths = batch.acoustic.log_probs(batch.encoded)
    for row, nbest in enumerate(with_letters.try_recognize(WAVEFORMS, options)):
        for each in nbest:
            letters = batch.speller.letters(each.labels)
            loss = ctc_loss(log_probs[row : row + 1], lengths[row : row + 1], [letters])
            assert each.scores["ctc"] == pytest.approx(-float(loss.total), rel=1e-4)


def test_another_llm_is_told_and_another_whisper_refused(folders, tmp_path, monkeypatch):
    part = folders / "part"
    save_tiny_whisper(tmp_path / "whisper-tiny", tiny_whisper())
    other = save_tiny_llm(tmp_path / "llm", "llama")
    shake(other, 5, 0.1)
    other.save_pretrained(tmp_path / "llm")
    monkeypatch.setenv(PARTS, str(tmp_path))
    with pytest.warns(KikitoriWarning, match="someone/llm has other weights here than in training"):
        load_model(part)
    save_tiny_whisper(tmp_path / "whisper-tiny", tiny_whisper(seed=1))
    with pytest.raises(ModelError, match="someone/whisper-tiny has other weights"):
        load_model(part)


def test_what_does_not_fit_is_refused(folders, tmp_path):
    part, folder = folders / "part", tmp_path / "part"
    folder.mkdir()
    for file in part.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(part)).parent.mkdir(exist_ok=True)
            (folder / file.relative_to(part)).write_bytes(file.read_bytes())
    tensors = load_file(part / "model.safetensors")
    missing = next(name for name in tensors if name.startswith("bridge."))
    save_file({name: each for name, each in tensors.items() if name != missing}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"do not fit config.json at {missing}"):
        load_model(folder)
    save_file(tensors | {missing: tensors[missing][:1].contiguous()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"do not fit config.json at {missing}"):
        load_model(folder)
    with pytest.raises(ModelError, match="no run of a speech LLM whose LLM learnt by LoRA"):
        convert_speech_llm(folders / "whisper-tiny", "a/b", "c/d", tmp_path / "new")
