"""A speech LLM in the folder of a recogniser whose encoder and heads it shares."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kikitori.errors import KikitoriError, ModelError
from kikitori.io.model_folder import SPEECH_LLM
from kikitori.loading import load
from kikitori.model.folder import LoadedModel, load_ctc_units, load_llm, load_model, save_model
from kikitori.model.published.convert import convert_decoder
from kikitori.model.published.second_decoder import decoder_folder, decoders_in
from kikitori.recognizer import PLAIN, Recognizer
from kikitori.search.options import GreedySearch
from kikitori.text.units import equal_units
from tests.tiny import TRAINED_ON, save_tiny, shake, tiny_acoustic_model, tiny_bpe, tiny_units, tiny_waveforms
from tests.two_decoders import LETTERS, WHISPER, save_run, save_two_decoders

WAVEFORMS = tiny_waveforms(3)
SEARCHES = ("greedy", "beam", "joint", "speculative", "ctc_greedy")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, the run that its second decoder is made of, and that run's network rounded alike."""
    root = tmp_path_factory.mktemp("two")
    model = save_two_decoders(root / "two", root / "work")
    for name, tensor in model.state_dict().items():
        if not name.startswith("acoustic."):
            tensor.copy_(tensor.half())
    return root / "two", root / "work" / "run", model


@pytest.fixture(scope="module")
def recognizers(made):
    """With the second decoder of the folder, and with the run's network."""
    folder, _, model = made
    ours = load(folder, device="cpu", guards=PLAIN, decoder="speech_llm")
    alone = LoadedModel(model, tiny_bpe(), ours.loaded.trained_on, LETTERS)
    return ours, Recognizer(alone, GreedySearch(), "run", guards=PLAIN)


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the folder to spoil."""
    shutil.copytree(made[0], tmp_path / "two")
    return tmp_path / "two"


def test_the_folder_holds_only_what_is_its_own(made):
    own = made[0] / SPEECH_LLM
    names = {*load_file(own / "model.safetensors")}
    assert {name.split(".")[0] for name in names} == {"bridge"}
    for file in (own / "model.safetensors", own / "llm" / "model.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    assert json.loads((own / "config.json").read_text())["base"]["name"] == ".."
    assert str(made[0].parent) not in (own / "config.json").read_text()
    assert (own / "decoding.yaml").read_text() == "search: joint\n"
    assert not (own / "ctc_units").exists()


def test_it_is_the_run_in_float16_with_the_encoder_around(made):
    folder, _, model = made
    loaded = load_model(folder / SPEECH_LLM)
    assert loaded.trained_on.max_seconds == 1.8
    assert equal_units(loaded.units, tiny_bpe())
    assert equal_units(loaded.ctc_units, LETTERS)
    assert equal_units(load_ctc_units(folder / SPEECH_LLM), LETTERS)
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert torch.equal(load_llm(folder / SPEECH_LLM).lm_head.weight, model.llm.lm_head.weight)


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_writes_what_it_writes_with_the_run(recognizers, search):
    ours, theirs = recognizers
    found = ours.recognize(WAVEFORMS, search)
    assert [each.labels for each in found] == [each.labels for each in theirs.recognize(WAVEFORMS, search)]
    assert [each.labels for each in found] == [ours.recognize([each], search)[0].labels for each in WAVEFORMS]
    assert search == "joint" or any(each.text for each in found)


def test_whoever_does_not_ask_for_it_does_not_read_it(made, copied):
    for file in (copied / SPEECH_LLM).rglob("*"):
        if file.is_file():
            file.write_bytes(b"no JSON, no tensors")
    texts = [[each.text for each in load(folder, device="cpu").recognize(WAVEFORMS)] for folder in (made[0], copied)]
    assert texts[0] == texts[1]
    with pytest.raises(KikitoriError, match=SPEECH_LLM):
        load(copied, decoder="speech_llm")


def test_the_decoders_of_a_folder(made, tmp_path):
    folder = made[0]
    own = folder / SPEECH_LLM
    assert decoders_in(folder) == {"encoder_decoder": folder, "speech_llm": own}
    assert decoder_folder(folder, None) == decoder_folder(folder, "encoder_decoder") == folder
    assert decoder_folder(folder, "speech_llm") == decoder_folder(own, None) == decoder_folder(own, "speech_llm") == own
    with pytest.raises(ModelError, match=r"speech_llm: there is no encoder_decoder, but speech_llm;"):
        decoder_folder(own, "encoder_decoder")
    with pytest.raises(ModelError, match="there is no speech_llm, but encoder_decoder"):
        decoder_folder(folder / WHISPER, "speech_llm")
    save_tiny(tmp_path / "alone")
    assert decoders_in(tmp_path / "alone") == {"speech_llm": tmp_path / "alone"}
    save_model(tmp_path / "ctc", tiny_acoustic_model(), tiny_units(), TRAINED_ON)
    with pytest.raises(ModelError, match="there is no speech_llm, but no decoder"):
        decoder_folder(tmp_path / "ctc", "speech_llm")


def test_an_acoustic_model_has_its_only_decoder_by_default(tmp_path):
    save_model(tmp_path / "ctc", tiny_acoustic_model(num_units=LETTERS.size), LETTERS, TRAINED_ON)
    save_run(tmp_path / "run", tmp_path / "ctc")
    convert_decoder(tmp_path / "run", tmp_path / "ctc")
    recognizer = load(tmp_path / "ctc", device="cpu")
    assert (recognizer.name, recognizer.decoder) == ("ctc/speech_llm", "speech_llm")


def test_what_does_not_fit_is_refused(copied):
    own = copied / SPEECH_LLM
    tensors = load_file(own / "model.safetensors")
    name = min(tensors)
    save_file({key: each for key, each in tensors.items() if key != name}, own / "model.safetensors")
    with pytest.raises(ModelError, match=f"do not fit config.json at {name}"):
        load_model(own)
    save_file(tensors, own / "model.safetensors")
    values = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(values | {"bridge": "tunnel"}))
    with pytest.raises(ModelError, match="tunnel"):
        load_model(own)
    (own / "config.json").write_text(json.dumps(values | {"format_version": 99}))
    with pytest.raises(ModelError, match="newer kikitori"):
        load_model(own)
    (own / "config.json").write_text(json.dumps(values))
    heads = load_file(copied / "model.safetensors")
    save_file({key: each * 1.5 for key, each in heads.items()}, copied / "model.safetensors")
    with pytest.raises(ModelError, match="encoder and heads around it are others than in its training"):
        load_model(own)


def test_a_second_decoder_that_is_not_whole_is_named(copied):
    own = copied / SPEECH_LLM
    (own / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"speech_llm: cannot load the tokenizer .*; copy the tokenizer files too"):
        load(copied, decoder="speech_llm", device="cpu")
    shutil.rmtree(own / "llm")
    with pytest.raises(ModelError, match="speech_llm: the folder llm is missing; copy the folder again"):
        load_model(own)
    (own / "config.json").unlink()
    with pytest.raises(ModelError, match=r"speech_llm: config.json is missing; copy the folder again"):
        decoder_folder(copied, "speech_llm")


def test_what_is_no_second_decoder_is_not_put_in(made, copied, tmp_path):
    run = made[1]
    with pytest.raises(ModelError, match="is there already; remove it first"):
        convert_decoder(run, copied)
    shutil.rmtree(copied / SPEECH_LLM)
    with pytest.raises(ModelError, match="it is no speech LLM"):
        convert_decoder(copied, copied)
    with pytest.raises(ModelError, match="it is a speech LLM itself"):
        convert_decoder(run, run / "model")
    shutil.copytree(run / "model", tmp_path / "window")
    values = json.loads((tmp_path / "window" / "config.json").read_text())
    values["acoustic_config"]["encoder_config"]["window"] = "padded"
    (tmp_path / "window" / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"its encoder.window is not that of the recogniser"):
        convert_decoder(tmp_path / "window", copied)
    other = load_model(run / "model").model
    shake(other.acoustic.ctc_heads, 5, 0.1)
    save_model(tmp_path / "other", other, tiny_bpe(), TRAINED_ON, LETTERS)
    with pytest.raises(ModelError, match=r"its ctc_heads.2.linear.weight is not that of the recogniser"):
        convert_decoder(tmp_path / "other", copied)
    large = load_model(run / "model").model
    large.llm.lm_head.weight.data[0, 0] = 1e6
    save_model(tmp_path / "large", large, tiny_bpe(), TRAINED_ON, LETTERS)
    with pytest.raises(ModelError, match="too large for float16"):
        convert_decoder(tmp_path / "large", copied)
    assert not (copied / SPEECH_LLM).exists()
