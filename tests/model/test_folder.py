import json
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from kikitori.errors import KikitoriError, ModelError
from kikitori.io.untrusted import MAX_JSON_BYTES
from kikitori.model import AcousticModel, SpeechLLM
from kikitori.model.acoustic_model import FORMAT_VERSION
from kikitori.model.folder import is_recogniser, load_llm, load_model, save_model
from kikitori.model.safety.config import quiet_transformers
from kikitori.types import TrainedOn
from tests.refusal import refused
from tests.tiny import (
    LLMS,
    TRAINED_ON,
    save_tiny,
    save_tiny_llm,
    tiny_acoustic_model,
    tiny_speech_llm,
    tiny_units,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A recogniser folder that stays as it is."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_tiny(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(file, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def nest(file, key, **changes):
    edit(file, **{key: json.loads(file.read_text())[key] | changes})


def test_a_folder_gives_back_what_was_saved(folder):
    for model in (tiny_speech_llm(), tiny_acoustic_model()):
        shutil.rmtree(folder)
        save_tiny(folder, model)
        assert {file.name for file in folder.iterdir()} >= {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "processor_config.json",
            "generation_config.json",
        }
        loaded = load_model(folder)
        assert type(loaded.model) is type(model)
        assert not loaded.model.training
        expected = model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
        assert loaded.units.encode("lazy dog") == tiny_units().encode("lazy dog")
        assert loaded.trained_on == TRAINED_ON
        assert is_recogniser(folder)


def test_others_may_read_the_weights(folder):
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == folder.stat().st_mode & 0o666


def test_language_may_be_unknown(tmp_path):
    save_tiny(tmp_path, trained_on=TrainedOn(5.5, 20.0))
    assert load_model(tmp_path).trained_on == TrainedOn(5.5, 20.0, None)


def test_rules_of_the_length_come_back_and_may_be_absent(tmp_path):
    trained_on = TrainedOn(5.5, 20.0, "ja", "nue_asr", 2)
    save_tiny(tmp_path, trained_on=trained_on)
    assert load_model(tmp_path).trained_on == trained_on
    edit(tmp_path / "generation_config.json", length_rule=..., min_labels=...)
    assert load_model(tmp_path).trained_on == TrainedOn(5.5, 20.0, "ja", "label_rate", 0)


@pytest.mark.parametrize("model", [tiny_speech_llm, tiny_acoustic_model])
def test_format_version(tmp_path, model):
    save_tiny(tmp_path, model())
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == FORMAT_VERSION == 1
    edit(tmp_path / "config.json", format_version=...)
    assert load_model(tmp_path).model.config.format_version == 1
    edit(tmp_path / "config.json", format_version=2)
    refused(tmp_path, "written by a newer kikitori (format 2, this one reads up to 1); update kikitori")
    for version in ("1", None, 0, 1.5, True, [1]):
        edit(tmp_path / "config.json", format_version=version)
        refused(tmp_path, "no whole number as format_version")


def test_the_llm_of_a_speech_llm(folder, tmp_path):
    expected = load_model(folder).model.llm.state_dict()
    loaded = load_llm(folder).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())
    save_tiny(tmp_path / "acoustic", tiny_acoustic_model())
    refused(tmp_path / "acoustic", "an acoustic model has no LLM", load=load_llm)


@pytest.mark.parametrize("llm", LLMS)
def test_float16_folder_is_float32_in_memory(llm, tmp_path):
    model = tiny_speech_llm(llm=llm).half()
    save_tiny(tmp_path, model)
    loaded = load_model(tmp_path).model
    expected = model.state_dict()
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32, name
            assert torch.equal(value, expected[name].float()), name


def test_shards_are_read(folder):
    model = tiny_speech_llm()
    (folder / "model.safetensors").unlink()
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size="100kB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    expected = model.state_dict()
    loaded = load_model(folder).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())
    sorted(folder.glob("*.safetensors"))[-1].unlink()
    refused(folder)


@pytest.mark.parametrize("family", ["parakeet", "hubert"])
def test_a_speech_encoder_alone_is_named_as_what_it_is(tmp_path, family):
    encoder = tiny_acoustic_model(family).encoder
    with quiet_transformers():
        encoder.model.save_pretrained(tmp_path)
    assert not is_recogniser(tmp_path)
    with pytest.raises(ModelError, match=rf"speech encoder alone \('{encoder.config.model_type}'\) writes no text"):
        load_model(tmp_path)


def test_load_llm_gives_float32(tmp_path):
    llm = save_tiny_llm(tmp_path, "qwen2")
    loaded = load_llm(tmp_path)
    assert type(loaded) is type(llm)
    assert all(torch.equal(value, llm.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not is_recogniser(tmp_path)


def test_load_llm_takes_more_weights_but_not_fewer(tmp_path):
    save_tiny_llm(tmp_path, "llama")
    weights = load_file(tmp_path / "model.safetensors")
    metadata = {"format": "pt"}
    save_file({**weights, "model.old_buffer": torch.zeros(3)}, tmp_path / "model.safetensors", metadata=metadata)
    load_llm(tmp_path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata=metadata)
    refused(tmp_path, "model.layers.1.mlp.up_proj.weight", load=load_llm)


def test_missing_folder(tmp_path):
    for load in (load_model, load_llm, is_recogniser):
        refused(tmp_path / "nothing", "no such model folder", load=load)
    refused(tmp_path / "a file", "no such model folder")
    refused("no_folder_and_no_id", "no such model folder")
    refused("../nowhere", "no such model folder")


def test_missing_files(folder):
    for name in ("tokenizer.json", "generation_config.json", "model.safetensors", "config.json"):
        hidden = list(folder.glob(name.replace("tokenizer.json", "tokenizer*")))
        for file in hidden:
            file.rename(file.with_name(f"_{file.name}.away"))
        refused(folder, name)
        for file in hidden:
            file.with_name(f"_{file.name}.away").rename(file)
    load_model(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pkl", "model.nemo"])
def test_pickles_are_refused_with_the_reason(folder, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / name)
    refused(folder, name, "pickle, which can run code", "save_pretrained")


def test_a_pickle_beside_other_safetensors_is_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "prior.safetensors")
    refused(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_truncated_weights(folder, keep):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    refused(folder, "cannot be loaded")


def test_weights_that_are_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 20)
    refused(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON"),
        ("<html>", "not JSON"),
        ("{", "not JSON"),
        ("\x00\x01", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"model_type": ' + "9" * 10_000 + "}", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "model type 'None'"),
        ('{"model_type": "bert"}', "model type 'bert'"),
        ('{"model_type": ["bert"]}', "model type"),
    ],
)
def test_config_that_is_no_config(folder, text, expected):
    (folder / "config.json").write_text(text)
    refused(folder, expected)
    if "model type" in expected:
        assert not is_recogniser(folder)


def test_config_in_another_encoding(folder):
    (folder / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')
    refused(folder, "config.json is not JSON")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_huge_json_is_not_read(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    refused(folder, name, f"larger than {MAX_JSON_BYTES >> 20} MB")


def test_config_that_is_a_folder(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, "config.json is missing")


@pytest.mark.parametrize(
    ("key", "changes", "expected"),
    [
        ("", {"bridge": "wormhole"}, "unknown bridge 'wormhole'"),
        ("", {"bridge_stride": 0}, "stride 0"),
        ("", {"bridge_stride": "three"}, ""),
        ("", {"acoustic_config": None}, ""),
        ("", {"llm_config": ...}, ""),
        ("", {"llm_config": [1]}, ""),
        ("", {"llm_config": {"model_type": "no_such_llm"}}, "no_such_llm"),
        ("", {"llm_config": {"model_type": "hubert"}}, ""),
        ("", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, ""),
        ("llm_config", {"hidden_size": 48}, ""),
        ("llm_config", {"hidden_size": "many"}, ""),
        ("llm_config", {"num_attention_heads": 0}, ""),
        ("llm_config", {"num_hidden_layers": 3}, "do not fit config.json"),
        ("llm_config", {"num_hidden_layers": 1}, "do not fit config.json"),
        ("llm_config", {"attn_implementation": "someone/evil-kernel"}, "code from the hub"),
        ("acoustic_config", {"num_units": 5}, ""),
        ("acoustic_config", {"ctc_layers": [1, 2]}, "acoustic.ctc_heads.1"),
        ("acoustic_config", {"ctc_layers": []}, "acoustic.ctc_heads.2"),
        ("acoustic_config", {"encoder_config": {"model_type": "bert"}}, "no supported speech encoder"),
        ("acoustic_config", {"encoder_config": {"model_type": "wormhole"}}, "wormhole"),
        ("acoustic_config", {"encoder_config": None}, ""),
    ],
)
def test_config_that_does_not_fit(folder, key, changes, expected):
    if key:
        nest(folder / "config.json", key, **changes)
    else:
        edit(folder / "config.json", **changes)
    refused(folder, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bridge.linear.weight", "acoustic.encoder.model.encoder.layer_norm.bias"])
def test_weights_that_are_not_finite(folder, name, value):
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, name, "not finite")


def test_llm_weights_that_are_not_finite(tmp_path):
    save_tiny_llm(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["gpt_neox.final_layer_norm.bias"][0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, "gpt_neox.final_layer_norm.bias", load=load_llm)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels_per_second": ...},
        {"max_seconds": "long"},
        {"labels_per_second": -1},
        {"max_seconds": float("nan")},
        {"length_rule": "by heart"},
        {"length_rule": ["nue_asr"]},
        {"min_labels": -1},
        {"min_labels": 1.5},
        {"min_labels": None},
    ],
)
def test_generation_config_without_what_we_need(folder, changes):
    edit(folder / "generation_config.json", **changes)
    refused(folder, "generation_config.json", next(iter(changes)))


@pytest.mark.parametrize("model", [tiny_speech_llm, tiny_acoustic_model])
def test_tokenizer_of_another_model(tmp_path, model):
    save_tiny(tmp_path, model())
    tokenizer = tiny_units().tokenizer
    tokenizer.add_tokens(["zwanzig"])
    tokenizer.save_pretrained(tmp_path)
    refused(tmp_path, "the tokenizer has 33 labels, the model 32")


def test_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": ')
    refused_without_remedy(folder, "tokenizer")


def refused_without_remedy(folder, expected):
    with pytest.raises(KikitoriError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adapter_folder_does_not_lead_elsewhere(folder, tmp_path):
    base = {"base_model_name_or_path": str(tmp_path / "elsewhere"), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(base))
    refused(folder, "LoRA adapter")
    refused(folder, "LoRA adapter", load=load_llm)


@pytest.mark.parametrize("where", ["recogniser", "nested", "llm", "unknown llm", "tokenizer"])
def test_code_in_the_folder_is_neither_run_nor_asked_about(where, folder, tmp_path, monkeypatch):
    auto = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForCausalLM": "evil.Model",
        "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    }
    load = load_model
    if where in ("recogniser", "tokenizer"):
        edit(folder / ("config.json" if where == "recogniser" else "tokenizer_config.json"), auto_map=auto)
    elif where == "nested":
        edit(folder / "config.json", llm_config={"model_type": "hubert", "auto_map": auto})
    else:
        load = load_llm
        shutil.rmtree(folder)
        save_tiny_llm(folder)
        changes = {"model_type": "evil"} if where == "unknown llm" else {}
        edit(folder / "config.json", auto_map=auto, **changes)
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')\nclass Config: pass\nModel = Tokenizer = Config\n"
    (folder / "evil.py").write_text(code)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    if where in ("nested", "unknown llm"):
        refused(folder, load=load)
    else:
        load(folder)
    assert not mark.exists()
    assert not asked


def test_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ModelError, match=r"model: cannot be written \(File exists\)"):
        save_tiny(tmp_path / "model")


def test_saving_needs_no_network_and_leaves_only_plain_files(saved):
    for file in saved.iterdir():
        assert file.suffix in (".json", ".safetensors", ".jinja", ".model"), file
        assert stat.S_ISREG(file.stat().st_mode)


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    save_model(tmp_path / "again", tiny_speech_llm(), tiny_units(), TRAINED_ON)
    for file in saved.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_loading_prints_nothing(folder, capfd):
    model = load_model(folder).model
    assert isinstance(model, SpeechLLM)
    assert isinstance(model.acoustic, AcousticModel)
    assert capfd.readouterr() == ("", "")
