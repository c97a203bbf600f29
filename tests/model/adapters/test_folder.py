import json
import pickle
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from kikitori import loading
from kikitori.errors import DataError, KikitoriWarning, ModelError
from kikitori.model.adapters.folder import COMPONENT_WEIGHTS, load_adapter, merge_adapter, num_bytes, num_parameters
from kikitori.model.adapters.info import read_info
from kikitori.model.folder import LoadedModel, load_model
from kikitori.text.units import equal_units
from tests.adapters import make_adapter
from tests.crossed import crossed
from tests.tiny import LLMS, save_tiny, tiny_acoustic_model, tiny_speech_llm, tiny_waveform
from tests.two_decoders import LETTERS, save_two_decoders


def logits(loaded: LoadedModel) -> torch.Tensor:
    waveform = torch.from_numpy(tiny_waveform(1.0, 5))[None]
    with torch.no_grad():
        return loaded.model(waveform, torch.tensor([waveform.shape[1]]), [[5, 6, 7, 8, 9]])[0]


def adapted_logits(base, folder, components=("llm",), learnt=0.3):
    """Those of an adapter that is written."""
    model = make_adapter(base, folder, components, learnt=learnt)
    loaded = load_model(base)
    return logits(LoadedModel(model, loaded.units, loaded.trained_on))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """An adapter of everything, and its logits."""
    folder = tmp_path_factory.mktemp("made") / "adapter"
    return folder, adapted_logits(base, folder, ("llm", "bridge", "encoder"), learnt=0.1)


@pytest.fixture
def adapter(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "adapter")
    return tmp_path / "adapter"


def switched_on(base, folder):
    return load_adapter(load_model(base), base, folder)


COMPONENTS = [("llm",), ("bridge",), ("encoder",), ("llm", "bridge", "encoder"), ("whole_llm", "bridge", "encoder")]


@pytest.mark.parametrize("components", COMPONENTS)
def test_what_was_saved_is_switched_on(base, tmp_path, components):
    expected = adapted_logits(base, tmp_path / "adapter", components, learnt=0.1)
    plain = logits(load_model(base))
    loaded = switched_on(base, tmp_path / "adapter")
    assert torch.equal(logits(loaded), expected)
    assert not torch.allclose(expected, plain, atol=1e-3)
    assert (loaded.trained_on.labels_per_second, loaded.trained_on.max_seconds) == (12.0, 3.5)
    assert loaded.trained_on.language == "en"
    assert not loaded.model.training
    assert torch.equal(logits(load_model(base)), plain)  # the base itself is as it was
    if components == ("llm",):
        with loaded.model.llm.disable_adapter():
            assert torch.equal(logits(loaded), plain)
        loaded.model.llm = loaded.model.llm.unload()
        assert torch.equal(logits(loaded), plain)


def test_a_folder_holds_what_was_adapted_and_no_more(base, made, tmp_path):
    make_adapter(base, tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "kikitori_adapter.json"}
    make_adapter(base, tmp_path / "bridge", ("bridge",))
    assert {path.name for path in (tmp_path / "bridge").iterdir()} == {
        "components.safetensors",
        "kikitori_adapter.json",
    }
    changed = load_file(made[0] / "components.safetensors")
    model = load_model(base).model.state_dict()
    assert all(name.startswith(("bridge.", "acoustic.")) for name in changed)
    assert not any("feature_extractor" in name for name in changed)  # the convolutional front end stays
    assert any(name.startswith("acoustic.ctc_heads.2") for name in changed)
    assert all(not torch.equal(tensor, model[name]) for name, tensor in changed.items())
    lora = load_file(made[0] / "adapter_model.safetensors")
    assert num_parameters(made[0]) == sum(tensor.numel() for tensors in (lora, changed) for tensor in tensors.values())
    assert num_bytes(made[0]) == sum(path.stat().st_size for path in made[0].iterdir())


def test_peft_reads_the_folder_itself(base, tmp_path):
    from peft import PeftModel

    expected = adapted_logits(base, tmp_path / "adapter")
    loaded = load_model(base)
    with warnings.catch_warnings(action="ignore"):  # PEFT's about names in transformers
        loaded.model.llm = PeftModel.from_pretrained(loaded.model.llm, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("llm", "components"), crossed(LLMS, (("llm", "bridge"), ("whole_llm", "bridge"))))
def test_merging_gives_a_plain_recogniser_with_equal_logits(tmp_path, llm, components):
    save_tiny(tmp_path / "base", tiny_speech_llm(llm=llm))
    (tmp_path / "base" / "decoding.yaml").write_text("search: greedy\n")
    (tmp_path / "base" / "lm").mkdir()
    (tmp_path / "base" / "lm" / "config.json").write_text("{}")
    expected = adapted_logits(tmp_path / "base", tmp_path / "adapter", components)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "new" / "merged")
    merged = load_model(tmp_path / "new" / "merged")
    # A merged matrix rounds otherwise than the two beside each other; how much is a matter of the CPU.
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(logits(load_model(tmp_path / "base")), expected, atol=1e-2)
    assert merged.trained_on.max_seconds == 3.5
    assert type(merged.model.llm) is type(load_model(tmp_path / "base").model.llm)
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert {path.name for path in (tmp_path / "new" / "merged").iterdir()} == names | {"README.md"}
    with pytest.raises(DataError, match="is there already"):
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "new" / "merged")


def test_a_second_decoder_takes_adapters_and_keeps_the_letters_of_its_heads(tmp_path):
    save_two_decoders(tmp_path / "two", tmp_path / "work")
    second = tmp_path / "two" / "speech_llm"
    make_adapter(second, tmp_path / "adapter", learnt=0.3)
    loaded = switched_on(second, tmp_path / "adapter")
    assert not torch.allclose(logits(loaded), logits(load_model(second)), atol=1e-3)
    merge_adapter(second, tmp_path / "adapter", tmp_path / "merged")
    merged = load_model(tmp_path / "merged")
    assert torch.allclose(logits(merged), logits(loaded), atol=1e-4)
    for each in (loaded, merged):
        assert equal_units(each.ctc_units, LETTERS)


@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_other_interfaces(tmp_path, interface):
    save_tiny(tmp_path / "base", tiny_speech_llm(interface=interface, prompt="nue_asr"))
    expected = adapted_logits(tmp_path / "base", tmp_path / "adapter", ("llm", "bridge"), learnt=0.1)
    assert any(name.startswith("interface.") for name in load_file(tmp_path / "adapter" / COMPONENT_WEIGHTS))
    assert torch.equal(logits(switched_on(tmp_path / "base", tmp_path / "adapter")), expected)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), expected, atol=1e-4, rtol=0)


def test_a_run_folder_stands_for_its_adapter(base, adapter):
    assert read_info(adapter.parent) == read_info(adapter)
    found = loading.load(base, adapter=adapter.parent)
    assert found.name == f"{base.name} + {adapter.parent.parent.name}/{adapter.parent.name}"


def test_another_base_is_refused(adapter, base, tmp_path):
    other = tmp_path / "other"
    save_tiny(other, tiny_speech_llm(seed=1))
    with pytest.raises(ModelError, match=r"made for another base \('tiny'\); weights differ from .*--model"):
        loading.load(other, adapter=adapter)
    shutil.rmtree(other)
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))
    loading.load(other, adapter=adapter)  # who wrote it does not matter
    (other / "config.json").write_text(json.dumps(config | {"prompt_after": [1, 5]}))
    with pytest.raises(ModelError, match="config differ from"):
        loading.load(other, adapter=adapter)
    shutil.rmtree(other)
    save_tiny(other, tiny_acoustic_model())
    with pytest.raises(ModelError, match="needs a speech LLM"):
        loading.load(other, adapter=adapter, decoding="ctc_greedy")


def test_a_dead_adapter_is_named(base, tmp_path):
    make_adapter(base, tmp_path / "adapter", learnt=0.0)
    with pytest.warns(KikitoriWarning, match=r"the adapter changes nothing \(adapter_model.safetensors\)"):
        loading.load(base, adapter=tmp_path / "adapter")
    make_adapter(base, tmp_path / "other", ("llm", "bridge"), learnt=0.0)
    with pytest.warns(KikitoriWarning, match=r"\(components.safetensors and adapter_model.safetensors\)"):
        loading.load(base, adapter=tmp_path / "other")


def test_a_dead_part_is_named_beside_a_live_one(base, adapter):
    tensors = load_file(adapter / LORA)
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, adapter / LORA)
    with pytest.warns(KikitoriWarning, match=r"changes nothing \(adapter_model.safetensors\)"):
        loading.load(base, adapter=adapter)


def test_rank_stabilised_updates(base, tmp_path):
    plain, stabilised = (make_adapter(base, tmp_path / str(on), rank_stabilised=on) for on in (False, True))
    found = [logits(switched_on(base, tmp_path / str(on))) for on in (False, True)]
    loaded = load_model(base)
    for model, expected in ((plain, found[0]), (stabilised, found[1])):
        assert torch.equal(logits(LoadedModel(model, loaded.units, loaded.trained_on)), expected)
    assert not torch.allclose(*found, atol=1e-3)


def test_tied_matrices_are_kept_once(tmp_path):
    model = tiny_speech_llm(llm="llama")
    model.llm.config.tie_word_embeddings = model.config.llm_config.tie_word_embeddings = True
    model.llm.lm_head.weight = model.llm.model.embed_tokens.weight
    save_tiny(tmp_path / "base", model)
    expected = adapted_logits(tmp_path / "base", tmp_path / "adapter", ("whole_llm",))
    kept = load_file(tmp_path / "adapter" / COMPONENT_WEIGHTS)
    assert "llm.model.embed_tokens.weight" in kept
    assert "llm.lm_head.weight" not in kept
    assert torch.equal(logits(switched_on(tmp_path / "base", tmp_path / "adapter")), expected)


def test_a_search_that_does_not_use_the_adapter_is_named(base, tmp_path):
    make_adapter(base, tmp_path / "adapter")
    with pytest.warns(KikitoriWarning, match="ctc_greedy uses nothing that it adapts"):
        loading.load(base, adapter=tmp_path / "adapter", decoding="ctc_greedy")


def test_names_of_other_models_are_not_followed(base, adapter, made):
    change(adapter / "adapter_config.json", base_model_name_or_path="/etc/passwd", revision="main")
    change(adapter / "kikitori_adapter.json", base_name="https://nowhere.invalid")
    assert torch.equal(logits(switched_on(base, adapter)), made[1])


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2},
        {"components": []},
        {"components": ["tokenizer"]},
        {"base": "anything"},
        {"labels_per_second": float("inf")},
        {"max_seconds": -1.0},
        {"auto_map": {"AutoModel": "code.py"}},
    ],
)
def test_hostile_info(base, adapter, values):
    change(adapter / "kikitori_adapter.json", **values)
    refused(base, adapter, "kikitori_adapter.json: ")


@pytest.mark.parametrize(
    "values",
    [
        {"peft_type": "LOHA"},
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
        {"modules_to_save": ["embed_out"]},
        {"use_dora": True},
        {"layers_to_transform": [0]},
        {"rank_pattern": {".*": 10**9}},
        {"megatron_config": {"a": 1}},
        {"no_such_key": None},
        {"target_modules": "(a+)+$"},
        {"target_modules": ["(a+)+$"]},
        {"target_modules": []},
        {"target_modules": ["no_such_layer"]},
        {"r": 10**9},
        {"r": 0},
        {"r": "16"},
        {"lora_alpha": float("nan")},
        {"lora_dropout": 2.0},
        {"bias": "all"},
    ],
)
def test_hostile_configs(base, adapter, values):
    change(adapter / "adapter_config.json", **values)
    refused(base, adapter, "")


def _pickled(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


def _missing(folder):
    (folder / "adapter_model.safetensors").unlink()


def _cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _no_info(folder):
    (folder / "kikitori_adapter.json").unlink()


def _no_json(folder):
    (folder / "adapter_config.json").write_text("{")


def _with_tensors(name, mend):
    def damage(folder):
        tensors = load_file(folder / name)
        mend(tensors)
        save_file(tensors, folder / name)

    return damage


def _first(tensors):
    return next(iter(tensors))


LORA, COMPONENTS = "adapter_model.safetensors", "components.safetensors"
DAMAGES = {
    "a pickle": (_pickled, "adapter_model.bin is a pickle"),
    "no weights": (_missing, "adapter_model.safetensors is missing"),
    "cut": (_cut, "cannot be loaded"),
    "no info": (_no_info, "kikitori_adapter.json is missing"),
    "no json": (_no_json, "adapter_config.json is not JSON"),
    "not finite": (_with_tensors(LORA, lambda t: t[_first(t)].fill_(float("nan"))), "not finite"),
    "double": (_with_tensors(LORA, lambda t: t.update({_first(t): t[_first(t)].double()})), "is not torch.float32"),
    "one too few": (_with_tensors(LORA, lambda t: t.pop(_first(t))), "lacks"),
    "one too many": (_with_tensors(LORA, lambda t: t.update(extra=torch.zeros(1))), "does not fit the base at extra"),
    "misshapen": (_with_tensors(LORA, lambda t: t.update({_first(t): t[_first(t)][:, :1].clone()})), "does not fit"),
    "llm in components": (
        _with_tensors(COMPONENTS, lambda t: t.update({"llm.embed_out.weight": torch.zeros(32, 32)})),
        "components.safetensors does not fit the base at llm",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_folders(base, adapter, damage, message):
    damage(adapter)
    refused(base, adapter, message)


def refused(base, adapter, message):
    with pytest.raises(ModelError) as caught:
        switched_on(base, adapter)
    assert message in str(caught.value)
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(base, tmp_path):
    for wrong in (tmp_path / "missing", "owner/name"):
        with pytest.raises(ModelError, match="no such adapter folder"):
            switched_on(base, wrong)
