"""Whisper folders of CTranslate2, written here as its converter writes them."""

import json
import struct

import numpy as np
import pytest
import torch

from kikitori.errors import ModelError
from kikitori.loading import load
from kikitori.model.folder import load_model
from kikitori.model.published.convert import convert_ctranslate2
from kikitori.model.published.ctranslate2 import read_arrays
from kikitori.recognizer import PLAIN
from tests.tiny import save_tiny_whisper, tiny_waveforms, tiny_whisper, tiny_whisper_units

WAVEFORMS = tiny_waveforms(5)
NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def arrays_of(whisper, kind):
    """Arrays by name in CTranslate2's order of projections, matrices of a kind of numbers."""
    state, config = whisper.state_dict(), whisper.config
    found = {}

    def matrix(name, value):
        value = value.detach().numpy()
        if kind == "int8":
            scale = 127.0 / np.abs(value.reshape(len(value), -1)).max(axis=1)
            stored = np.rint(value * scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
            found[f"{name}_scale"] = scale.astype(np.float32)
        elif kind == "int16":
            scale = np.float32(1000.0 / np.abs(value).max())
            stored = np.rint(value * scale).astype(np.int16)
            found[f"{name}_scale"] = np.array(scale, np.float32)
        else:
            stored = value.astype(kind)
        found[name] = stored

    def linear(name, ours):
        weights = [state[f"{each}.weight"] for each in ours]
        biases = [state.get(f"{each}.bias", torch.zeros(len(weights[0]))) for each in ours]
        matrix(f"{name}/weight", torch.cat(weights))
        found[f"{name}/bias"] = torch.cat(biases).numpy()

    def norm(name, ours):
        found[f"{name}/gamma"], found[f"{name}/beta"] = (state[f"{ours}.{part}"].numpy() for part in ("weight", "bias"))

    matrix("decoder/embeddings/weight", state["model.decoder.embed_tokens.weight"])
    for side, heads in (("encoder", config.encoder_attention_heads), ("decoder", config.decoder_attention_heads)):
        ours = f"model.{side}"
        found[f"{side}/num_heads"] = np.array(heads, np.int16)
        found[f"{side}/position_encodings/encodings"] = state[f"{ours}.embed_positions.weight"].numpy()
        norm(f"{side}/layer_norm", f"{ours}.layer_norm")
        for layer in range(getattr(config, f"{side}_layers")):
            name, own = f"{side}/layer_{layer}", f"{ours}.layers.{layer}"
            norm(f"{name}/ffn/layer_norm", f"{own}.final_layer_norm")
            linear(f"{name}/ffn/linear_0", [f"{own}.fc1"])
            linear(f"{name}/ffn/linear_1", [f"{own}.fc2"])
            norm(f"{name}/self_attention/layer_norm", f"{own}.self_attn_layer_norm")
            linear(f"{name}/self_attention/linear_0", [f"{own}.self_attn.{each}_proj" for each in "qkv"])
            linear(f"{name}/self_attention/linear_1", [f"{own}.self_attn.out_proj"])
            if side == "decoder":
                norm(f"{name}/attention/layer_norm", f"{own}.encoder_attn_layer_norm")
                linear(f"{name}/attention/linear_0", [f"{own}.encoder_attn.q_proj"])
                linear(f"{name}/attention/linear_1", [f"{own}.encoder_attn.{each}_proj" for each in "kv"])
                linear(f"{name}/attention/linear_2", [f"{own}.encoder_attn.out_proj"])
    for number in (1, 2):
        linear(f"encoder/conv{number}", [f"model.encoder.conv{number}"])
    return found


def written(arrays, *, version=6, specification="WhisperSpec"):
    def name(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", version), name(specification), struct.pack("<II", 3, len(arrays))]
    for key, value in sorted(arrays.items()):
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        parts += [name(key), shape, struct.pack("<BI", NUMBERS[str(value.dtype)], value.nbytes), value.tobytes()]
    parts += [struct.pack("<I", 1), name("decoder/projection/weight"), name("decoder/embeddings/weight")]
    return b"".join(parts)


def save(folder, kind="float32", *, multilingual=True):
    whisper = tiny_whisper(multilingual=multilingual)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(written(arrays_of(whisper, kind)))
    rules = whisper.generation_config
    settings = {
        "suppress_ids": rules.suppress_tokens,
        "suppress_ids_begin": rules.begin_suppress_tokens,
        "lang_ids": [*rules.lang_to_id.values()] if multilingual else [],
    }
    (folder / "config.json").write_text(json.dumps(settings))
    tiny_whisper_units().save(folder)
    return folder


@pytest.mark.parametrize("multilingual", [False, True])
def test_the_model_is_that_of_transformers(tmp_path, multilingual):
    save_tiny_whisper(tmp_path / "transformers", tiny_whisper(multilingual=multilingual))
    theirs, ours = load_model(save(tmp_path / "ct2", multilingual=multilingual)), load_model(tmp_path / "transformers")
    assert theirs.model.rules == ours.model.rules
    assert theirs.trained_on == ours.trained_on
    state = ours.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.model.state_dict().items())
    texts = [
        [each.text for each in load(tmp_path / name, device="cpu", guards=PLAIN).recognize(WAVEFORMS)]
        for name in ("ct2", "transformers")
    ]
    assert texts[0] == texts[1]
    assert any(texts[0])


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_converted_it_is_the_same_model(tmp_path, kind):
    told = []
    new = tmp_path / "models" / "new"
    convert_ctranslate2(save(tmp_path / "ct2", kind), new, told.append)
    assert len(told) == (kind == "int8")
    converted, read = load_model(new), load_model(tmp_path / "ct2")
    assert converted.model.rules == read.model.rules
    state = read.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in converted.model.state_dict().items())
    with pytest.raises(ModelError, match="is there already"):
        convert_ctranslate2(tmp_path / "ct2", new, told.append)
    with pytest.raises(ModelError, match=r"there is no model\.bin alone"):
        convert_ctranslate2(new, tmp_path / "other", told.append)


@pytest.mark.parametrize(("kind", "most"), [("float16", 2e-3), ("int16", 5e-3), ("int8", 3e-2)])
def test_smaller_numbers_become_float32(tmp_path, kind, most):
    found = load_model(save(tmp_path, kind)).model
    expected = tiny_whisper(multilingual=True).state_dict()
    parts = {"model.encoder": found.encoder.model, "model.decoder": found.network}
    for part, module in parts.items():
        for name, tensor in module.state_dict().items():
            assert tensor.dtype == torch.float32
            reference = expected[f"{part}.{name}"]
            assert float((tensor - reference).abs().max()) <= most * max(1.0, float(reference.abs().max())), name


def test_a_damaged_file(tmp_path):
    folder = save(tmp_path)
    content = (folder / "model.bin").read_bytes()
    for size in (0, 3, 20, 200, len(content) // 2, len(content) - 1):
        (folder / "model.bin").write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"model.bin is damaged"):
            read_arrays(folder)
    (folder / "model.bin").write_bytes(content[:40] + b"\xff" * 40 + content[80:])
    with pytest.raises(ModelError, match=r"model.bin is damaged"):
        read_arrays(folder)


@pytest.mark.parametrize(("version", "kind"), [(5, "WhisperSpec"), (6, "TransformerSpec")])
def test_another_version_or_network(tmp_path, version, kind):
    folder = save(tmp_path)
    (folder / "model.bin").write_bytes(written({}, version=version, specification=kind))
    with pytest.raises(ModelError, match=rf"model.bin holds a {kind} in version {version} of the format"):
        load_model(folder)


def test_a_folder_without_its_tokenizer(tmp_path):
    folder = save(tmp_path)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer.json"):
        load_model(folder)


def test_missing_arrays(tmp_path):
    folder = save(tmp_path)
    arrays = arrays_of(tiny_whisper(multilingual=True), "float32")
    del arrays["decoder/layer_0/ffn/linear_1/bias"]
    (folder / "model.bin").write_bytes(written(arrays))
    with pytest.raises(ModelError, match=r"has no decoder/layer_0/ffn/linear_1/bias"):
        load_model(folder)
