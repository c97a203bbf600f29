import json
import pickle
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.loading import load
from kikitori.model.folder import is_recogniser, load_llm, load_model
from kikitori.model.published import nue_asr
from kikitori.model.published.convert import convert_nue_asr
from kikitori.search.options import GreedySearch
from kikitori.train.build.task import build_task
from kikitori.train.recipe.recipe import load_recipe
from kikitori.train.run import dry_run, train
from tests.crossed import crossed
from tests.published import (
    BOS,
    CONFIG,
    EOS,
    SEP,
    published_tensors,
    release,
    save_published,
    save_weights,
)
from tests.refusal import refused
from tests.tiny import tiny_waveforms
from tests.train.helpers import speech_llm_recipe, write_corpus, write_recipe

WAVEFORMS = tiny_waveforms(16, seconds=(0.3, 2.0))
FORMS = {
    "float16": {},
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "shards": {"shards": 3},
}


@pytest.fixture(scope="module")
def tensors():
    return published_tensors(release(), torch.float16)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tensors):
    """The release as it is, float16 in one safetensors file."""
    return save_published(tmp_path_factory.mktemp("saved") / "nue-asr", tensors)


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "nue-asr")


@pytest.fixture(scope="module")
def converted(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "ours"
    convert_nue_asr(saved, folder, refuse_to_log)
    return folder


@pytest.fixture(scope="module")
def expected():
    """What transformers writes for each utterance alone."""
    parts = release()
    return [parts.generate(waveform) for waveform in WAVEFORMS]


def refuse_to_log(line):
    raise AssertionError(line)


def edit(file, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def spoil(folder, **changes):
    """Replaces tensors, or leaves out those that are None."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def refused_to_convert(source, output, *expected):
    before = sorted(output.parent.iterdir())
    refused(source, *expected, load=lambda folder: convert_nue_asr(folder, output, lambda _: None))
    assert sorted(output.parent.iterdir()) == before  # nothing half done stays


def test_the_examples_are_worth_testing_with(expected):
    lengths = [len(labels) for labels in expected]
    assert len(set(lengths)) > 6
    assert min(lengths) == 2
    parts = release()
    with torch.inference_mode():
        firsts = [int(parts.logits(waveform, [7])[0].argmax()) for waveform in WAVEFORMS]
    assert firsts.count(EOS) > 3  # ruled out, or these would be empty
    assert any(len(labels) == int(4 * len(w) / 16000 + 20.5) for labels, w in zip(expected, WAVEFORMS, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_the_release(form, tmp_path):
    dtype = FORMS[form].get("dtype", torch.float16)
    loaded = load_model(save_published(tmp_path, **FORMS[form]))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    parts = release(dtype)
    model, labels = loaded.model, [40, 300, 271, 8, 90]
    for waveform in WAVEFORMS[:4]:
        encoded = model.acoustic.encode(*pad_waveforms([waveform]))
        with torch.inference_mode():
            logits, next_labels = model.label_logits(encoded, [labels])
        torch.testing.assert_close(logits, parts.logits(waveform, labels), rtol=1e-5, atol=1e-5)
        assert next_labels.tolist() == [*labels, EOS]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_greedy_labels_are_those_of_generate(saved, expected, batch_size):
    recognizer = load(saved, device="cpu")
    got = []
    for start in range(0, len(WAVEFORMS), batch_size):
        got += recognizer.recognize(WAVEFORMS[start : start + batch_size])
    assert [list(hypothesis.labels) for hypothesis in got] == expected
    for hypothesis, waveform in zip(got, WAVEFORMS, strict=True):
        assert hypothesis.complete or len(hypothesis.labels) == int(4 * len(waveform) / 16000 + 20.5)


def test_what_the_release_says_beside_the_weights(saved):
    loaded = load_model(saved)
    config = loaded.model.config
    assert (config.prompt_before, config.prompt_after, config.eos_id) == ([BOS], [SEP], EOS)
    assert loaded.trained_on == nue_asr.TRAINED_ON
    assert not loaded.model.acoustic.encoder.config.do_normalize
    assert config.llm_config.rope_parameters["partial_rotary_factor"] == 1.0
    assert not loaded.model.training
    assert is_recogniser(saved)


def test_defaults_of_keys_that_the_release_leaves_out():
    """Those of transformers 4.33, on which the published config.json relies."""
    settings = {key: value for key, value in CONFIG["llm_config"].items() if "size" not in key}
    sections = {"audio_encoder_config": {"model_type": "hubert"}, "llm_config": settings}

    class Units:
        size, bos_id, eos_id = 32000, BOS, EOS

        def special_id(self, token):
            return {"<s>": BOS, "[SEP]": SEP, "</s>": EOS}[token]

    config = nue_asr.published_config({**CONFIG, **sections}, Units(), "here")
    llm, encoder = config.llm_config, config.acoustic_config.encoder_config
    assert llm.rope_parameters == {"rope_theta": 10000, "partial_rotary_factor": 1.0, "rope_type": "default"}
    assert (llm.layer_norm_eps, llm.hidden_act, llm.max_position_embeddings) == (1e-5, "gelu", 2048)
    assert (llm.tie_word_embeddings, llm.attention_bias) == (False, True)
    assert (encoder.hidden_size, encoder.num_hidden_layers, encoder.num_attention_heads) == (768, 12, 12)
    assert (encoder.intermediate_size, encoder.hidden_act, encoder.layer_norm_eps) == (3072, "gelu", 1e-5)
    assert (encoder.feat_extract_norm, encoder.feat_extract_activation, encoder.conv_bias) == ("group", "gelu", False)
    assert tuple(encoder.conv_dim) == (512,) * 7
    assert tuple(encoder.conv_stride) == (5, 2, 2, 2, 2, 2, 2)
    assert tuple(encoder.conv_kernel) == (10, 3, 3, 3, 3, 2, 2)
    assert (encoder.num_conv_pos_embeddings, encoder.num_conv_pos_embedding_groups) == (128, 16)
    assert (encoder.do_stable_layer_norm, encoder.feat_proj_layer_norm, encoder.mask_time_prob) == (False, True, 0.05)


@pytest.mark.parametrize(("dtype", "shard_bytes"), crossed((torch.float16, torch.float32), (10**9, 100_000)))
def test_convert_then_load_is_load(dtype, shard_bytes, tmp_path):
    source = save_published(tmp_path / "source", dtype=dtype)
    convert_nue_asr(source, tmp_path / "new" / "ours", refuse_to_log, shard_bytes=shard_bytes)
    files = sorted((tmp_path / "new" / "ours").glob("*.safetensors"))
    assert len(files) == 1 or shard_bytes < 10**9
    assert all(file.stat().st_size < shard_bytes + 20_000 for file in files)
    on_disk = [tensor for file in files for tensor in load_file(file).values()]
    assert {tensor.dtype for tensor in on_disk} == {dtype}
    direct, ours = load_model(source), load_model(tmp_path / "new" / "ours")
    expected = direct.model.state_dict()
    assert ours.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in ours.model.state_dict().items())
    assert ours.trained_on == direct.trained_on
    assert ours.units.tokenizer.get_vocab() == direct.units.tokenizer.get_vocab()
    texts = ["吾輩は猫である。", " [SEP]ｶﾞ\u3042か\u3099 𠮷😀\r\n", "<s>a</s>"]
    assert [ours.units.encode(text) for text in texts] == [direct.units.encode(text) for text in texts]
    one, other = (load(path, device="cpu") for path in (source, tmp_path / "new" / "ours"))
    assert one.recognize(WAVEFORMS[:5]) == other.recognize(WAVEFORMS[:5])
    assert other.decoding == GreedySearch()


def test_what_a_converted_folder_holds(converted, saved):
    names = {file.name for file in converted.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "generation_config.json",
        "decoding.yaml",
        "README.md",
    }
    assert all(stat.S_ISREG(file.stat().st_mode) for file in converted.iterdir())
    config = json.loads((converted / "config.json").read_text())
    assert (config["model_type"], config["format_version"]) == ("kikitori_speech_llm", 1)
    assert (config["dtype"], config["architectures"]) == ("float16", ["SpeechLLM"])
    card = (converted / "README.md").read_text()
    assert f"`{saved.name}`" in card
    assert not any(str(saved.parent).encode() in file.read_bytes() for file in converted.iterdir())
    assert "Apache-2.0" in card
    assert "{" not in card
    with safe_open(converted / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "acoustic.encoder.model.encoder.pos_conv_embed.conv.parametrizations.weight.original0" in names
    assert "llm.embed_out.weight" in names


@pytest.mark.parametrize("shards", [1, 3])
def test_pickles_are_read_by_convert_alone(tmp_path, tensors, shards, converted):
    source = save_published(tmp_path / "source", tensors, pickled=True, shards=shards)
    refused(source, "is a pickle", f"run kikitori convert nue-asr {source} -o FOLDER")
    refused(source, "is a pickle", load=load)
    lines: list[str] = []
    convert_nue_asr(source, tmp_path / "ours", lines.append)
    assert len(lines) == shards
    assert all(line.startswith("pytorch_model") and "nothing in it is run" in line for line in lines)
    name = "model.safetensors"
    assert (tmp_path / "ours" / name).read_bytes() == (converted / name).read_bytes()


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("kind", ["torch", "pickle", "other"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, tensors, kind):
    source = save_published(tmp_path / "source", tensors, pickled=True)
    mark, file = tmp_path / "ran", source / "pytorch_model.bin"
    match kind:
        case "torch":
            torch.save({**tensors, "bridge_proj.bias": Malicious(mark)}, file)
        case "pickle":
            file.write_bytes(pickle.dumps(Malicious(mark)))
        case "other":
            torch.save([1, 2], file)
    refused_to_convert(source, tmp_path / "ours", "pytorch_model.bin")
    assert not mark.exists()


def test_safetensors_come_first(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    convert_nue_asr(folder, tmp_path / "ours", refuse_to_log)
    load_model(folder)


def test_buffers_of_old_releases_are_dropped_and_nothing_else(folder):
    layer = "llm.gpt_neox.layers.1.attention"
    spoil(
        folder,
        **{
            f"{layer}.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
            f"{layer}.masked_bias": torch.tensor(-1e9),
            f"{layer}.rotary_emb.inv_freq": torch.ones(4),
        },
    )
    load_model(folder)
    for name in ("llm.gpt_neox.layers.1.bias", "audio_encoder.masked_bias", "lm_head.weight"):
        spoil(folder, **{name: torch.ones(1)})
        refused(folder, f"the tensor {name} belongs to no part")
        spoil(folder, **{name: None})


def test_both_names_of_the_positional_convolution(folder):
    conv = "audio_encoder.encoder.pos_conv_embed.conv"
    tensors = load_file(folder / "model.safetensors")
    moved = {
        f"{conv}.parametrizations.weight.original0": tensors[f"{conv}.weight_g"],
        f"{conv}.parametrizations.weight.original1": tensors[f"{conv}.weight_v"],
    }
    spoil(folder, **moved)
    refused(folder, "parametrizations.weight.original0 belongs to no part")  # not both at once
    before = load_model_of(tensors, folder)
    spoil(folder, **moved, **{f"{conv}.weight_g": None, f"{conv}.weight_v": None})
    after = load_model(folder).model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def load_model_of(tensors, folder):
    save_weights(folder, tensors)
    return load_model(folder).model.state_dict()


@pytest.mark.parametrize(
    "name",
    [
        "llm.embed_out.weight",
        "llm.gpt_neox.layers.0.attention.query_key_value.weight",
        "audio_encoder.masked_spec_embed",
        "audio_encoder.encoder.pos_conv_embed.conv.weight_g",
        "bridge_convs.1.bias",
        "bridge_proj.weight",
    ],
)
def test_a_tensor_is_missing_or_of_another_shape_or_kind(folder, name, tmp_path):
    right = load_file(folder / "model.safetensors")[name]
    spoil(folder, **{name: torch.cat([right, right])})
    refused(folder, f"the tensor {name} has shape", "config.json says")
    refused_to_convert(folder, tmp_path / "ours", f"the tensor {name} has shape")
    spoil(folder, **{name: right.long()})
    refused(folder, f"{name} holds int64 numbers")
    spoil(folder, **{name: None})
    refused(folder, f"the tensor {name} is missing")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(folder, bad, tmp_path):
    spoil(folder, **{"bridge_convs.0.bias": torch.full((32,), bad, dtype=torch.float16)})
    refused(folder, "bridge.convs.0.bias holds values that are not finite")
    refused_to_convert(folder, tmp_path / "ours", "bridge.convs.0.bias holds values that are not finite")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bridge_conv_kernel_size": [3, 3]}, "bridge_conv_kernel_size [3, 3], where [4, 4]"),
        ({"bridge_conv_stride": [2, 2, 2]}, "bridge_conv_stride [2, 2, 2], where [2, 2]"),
        ({"bridge_conv_stride": ...}, "bridge_conv_stride None"),
        ({"audio_encoder_config": {"model_type": "wav2vec2"}}, "'wav2vec2' in audio_encoder_config"),
        ({"llm_config": {"model_type": "llama"}}, "'llama' in llm_config"),
        ({"llm_config": ...}, "None in llm_config"),
        ({"llm_config": CONFIG["llm_config"] | {"num_hidden_layers": 3}}, "layers.2"),
        ({"llm_config": CONFIG["llm_config"] | {"num_hidden_layers": 1}}, "layers.1"),
        ({"llm_config": CONFIG["llm_config"] | {"hidden_size": "many"}}, ""),
        ({"llm_config": CONFIG["llm_config"] | {"vocab_size": 100}}, "labels, the model 100"),
        ({"llm_config": CONFIG["llm_config"] | {"attn_implementation": "some/kernel"}}, "code from the hub"),
        ({"audio_encoder_config": CONFIG["audio_encoder_config"] | {"conv_dim": [16]}}, ""),
    ],
)
def test_config_of_another_model(folder, changes, expected):
    edit(folder / "config.json", **changes)
    refused(folder, expected)


def test_missing_files(folder, tmp_path):
    for name in ("spiece.model", "tokenizer_config.json", "config.json", "model.safetensors"):
        (folder / name).rename(tmp_path / "away")
        refused(folder, f"{name} is missing")
        refused_to_convert(folder, tmp_path / "ours", f"{name} is missing")
        (tmp_path / "away").rename(folder / name)
    load_model(folder)


@pytest.mark.parametrize("damage", ["cut", "html", "index", "elsewhere", "lost shard"])
def test_damaged_weights(folder, tensors, damage):
    file = folder / "model.safetensors"
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
            refused(folder, "model.safetensors ")
        case "html":
            file.write_bytes(b"<html>not found</html>" * 20)
            refused(folder, "model.safetensors ")
        case "index":
            file.unlink()
            (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
            refused(folder, "does not name files beside it")
        case "elsewhere":
            file.rename(folder.parent / "model.safetensors")
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../model.safetensors"}}')
            refused(folder, "does not name files beside it")
        case "lost shard":
            file.unlink()
            save_weights(folder, tensors, shards=3)
            (folder / "model-00002-of-00003.safetensors").unlink()
            refused(folder, "model-00002-of-00003.safetensors is missing")


def test_a_damaged_pickle(tmp_path, tensors):
    source = save_published(tmp_path / "source", tensors, pickled=True)
    file = source / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-1000])
    refused_to_convert(source, tmp_path / "ours", "pytorch_model.bin")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("spiece.model", b"\x00\xff" * 50, "spiece.model: is no tokenizer"),
        ("spiece.model", b"", "spiece.model: is no"),
        ("tokenizer.json", b"{", "tokenizer.json is not JSON"),
        ("tokenizer.json", b"{}", "tokenizer.json: is no tokenizer"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("tokenizer_config.json", b"{}", "no end-of-sentence token"),
    ],
)
def test_damaged_tokenizer(folder, name, content, expected):
    (folder / name).write_bytes(content)
    refused(folder, expected)


def test_a_tokenizer_without_the_marks_of_the_prompt(folder):
    tokenizer = json.loads(load_model(folder).units.tokenizer.backend_tokenizer.to_str())
    tokenizer["model"]["vocab"][SEP][0] = "[other]"
    tokenizer["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(folder, "'[SEP]' is not an item of the vocabulary", "tokenizer files")


def test_a_tokenizer_json_is_taken_as_it_is(folder):
    before = load_model(folder).units
    before.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "spiece.model").unlink()
    after = load_model(folder).units
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert after.encode("吾輩は<0x41>") == before.encode("吾輩は<0x41>")
    assert (after.bos_id, after.eos_id, after.special_id("[SEP]")) == (BOS, EOS, SEP)


def test_output_folders(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    convert_nue_asr(saved, tmp_path / "empty", refuse_to_log)
    load_model(tmp_path / "empty")
    for name, expected in (("empty", "is there already"), ("file", "is there already"), ("file/below", "File exists")):
        (tmp_path / "file").touch()
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ModelError, match=expected) as caught:
            convert_nue_asr(saved, tmp_path / name, refuse_to_log)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.remedy
        assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kikitori.model.weights.save_file", fail)
    with pytest.raises(ModelError, match=r"cannot be written \(No space left on device\); check the path and the free"):
        convert_nue_asr(saved, tmp_path / "ours", refuse_to_log)
    assert list(tmp_path.iterdir()) == []


def test_converting_keeps_a_shard_at_a_time_in_memory(saved, tmp_path, monkeypatch):
    from kikitori.model import weights

    sizes = []

    def save(tensors, *args, **kwargs):
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        return save_file(tensors, *args, **kwargs)

    monkeypatch.setattr(weights, "save_file", save)
    convert_nue_asr(saved, tmp_path / "ours", refuse_to_log, shard_bytes=40_000)
    assert len(sizes) > 3
    assert max(sizes) <= 40_000


def test_recordings_are_cut_beyond_16_seconds(saved):
    assert load(saved, device="cpu").longest == 16 * 16000


def test_loading_prints_nothing(saved, capfd):
    load_model(saved)
    assert capfd.readouterr() == ("", "")


def test_its_llm_can_be_had_alone(saved, converted):
    expected = load_model(saved).model.llm.state_dict()
    for folder in (saved, converted):
        llm = load_llm(folder)
        assert all(torch.equal(value, expected[name]) for name, value in llm.state_dict().items())


def test_training_starts_from_the_converted_folder(converted, tmp_path):
    write_corpus(tmp_path)
    parts = {"encoder": {"init": str(converted)}, "llm": {"init": str(converted)}}
    bridge = {"kind": "conv", "stride": 4, "init": str(converted)}
    units = {"kind": "run", "path": str(converted), "text_form": "as_is"}
    run = {"epochs": 1, "device": "cpu"}
    values = speech_llm_recipe(**parts, bridge=bridge, units=units, run=run, ctc={"weights": {}})
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path, {**values, "prompt": {"preset": "nue_asr"}})
    start = load_model(converted).model.state_dict()
    task = build_task(load_recipe(recipe), lambda _: None)
    built = task.module.model.state_dict()
    assert built.keys() == start.keys()
    assert all(torch.equal(value, start[name]) for name, value in built.items())
    assert any(line.startswith("loss before training: ") for line in dry_run(recipe))
    train(recipe, tmp_path / "run")
    trained = load_model(tmp_path / "run" / "model")
    config = trained.model.config
    assert (config.prompt_before, config.prompt_after, config.eos_id) == ([BOS], [SEP], EOS)
    assert not trained.model.acoustic.encoder.config.do_normalize
    assert any(not torch.equal(value, start[name]) for name, value in trained.model.state_dict().items())


def hub_cache(home: Path, revisions: dict[str, Path]) -> None:
    """A download cache in which rinna/nue-asr has these files in these revisions."""
    model = home / "hub" / "models--rinna--nue-asr"
    for number, (revision, folder) in enumerate(revisions.items()):
        commit = str(number) * 40
        shutil.copytree(folder, model / "snapshots" / commit)
        (model / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (model / "refs" / revision).write_text(commit)


warnings_are_errors = pytest.mark.filterwarnings("error::UserWarning", "error::FutureWarning")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Where the download cache is; nothing but it can be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "home"


@pytest.fixture
def main(tmp_path, tensors):
    """The main revision: a pickle alone."""
    return save_published(tmp_path / "main", tensors, pickled=True)


@warnings_are_errors
def test_a_hub_id_finds_the_safetensors_of_the_pull_request(tmp_path, hub, main, tensors, capfd):
    (tmp_path / "pull").mkdir()
    save_weights(tmp_path / "pull", tensors)
    hub_cache(hub, {"main": main, nue_asr.SAFETENSORS_REVISION: tmp_path / "pull"})
    assert load("rinna/nue-asr", device="cpu").name == "rinna/nue-asr"
    assert capfd.readouterr() == ("", "")


@warnings_are_errors
def test_a_hub_id_without_safetensors(tmp_path, hub, main, capfd):
    hub_cache(hub, {"main": main})
    with pytest.raises(ModelError, match=r"^rinna/nue-asr: .*run kikitori convert nue-asr rinna/nue-asr -o FOLDER$"):
        load("rinna/nue-asr", device="cpu")
    notices = []
    convert_nue_asr("rinna/nue-asr", tmp_path / "ours", notices.append)
    (notice,) = notices
    assert notice.startswith("pytorch_model.bin is a pickle")
    assert load(tmp_path / "ours", device="cpu").name == "ours"
    assert capfd.readouterr() == ("", "")


@warnings_are_errors
@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached(tmp_path, capfd):
    with pytest.raises(ModelError, match=r"^rinna/nue-asr: config\.json cannot be fetched"):
        load("rinna/nue-asr", device="cpu")
    with pytest.raises(ModelError, match=r"^rinna/nue-asr: config\.json cannot be fetched"):
        convert_nue_asr("rinna/nue-asr", tmp_path / "ours", refuse_to_log)
    assert not (tmp_path / "ours").exists()
    assert capfd.readouterr() == ("", "")


def test_a_network_that_breaks_off(monkeypatch):
    def fail(*_, **__):
        raise TimeoutError("The read operation\ntimed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr(nue_asr, "read_json", lambda *_: CONFIG)
    refused("rinna/nue-asr", "cannot be fetched (The read operation)", load=nue_asr.open_published)
