"""Whisper folders of CTranslate2 (faster-whisper) as a Whisper's sizes and tensors.

`model.bin` holds named arrays: float32, float16, or whole numbers with a scale for each row, which become float32
again. The layout is that of version 6 of the format, which CTranslate2 has written since 2022 (its
`python/ctranslate2/specs/model_spec.py` describes it).
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.safety.config import read_json
from kikitori.model.whisper.config import WhisperConfig
from kikitori.text.units import TokenizerUnits

MODEL = "model.bin"
VERSION, SPECIFICATION = 6, "WhisperSpec"
TYPES = (np.dtype("<f4"), np.dtype("i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<f2"))
"""Of arrays, by their numbers; 5 is bfloat16, which numpy does not know."""
BFLOAT16 = 5
MOST_ARRAYS, LONGEST_NAME = 100_000, 1_000
LINEAR = {"self_attn": ("self_attention", 0, 1), "encoder_attn": ("attention", 0, 2)}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")

Arrays = Mapping[str, NDArray[Any]]


def is_ctranslate2(folder: Path) -> bool:
    """Whether this is a folder of CTranslate2."""
    return (folder / MODEL).is_file() and not any(folder.glob("*.safetensors"))


def read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of `model.bin` by name, as they are stored; aliases of others included.

    Raises:
        ModelError: It is another version, no Whisper, or damaged.
    """
    file = folder / MODEL
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            (version,) = struct.unpack("<I", content.read(4))
            name = _name(content)
            (_, count) = struct.unpack("<II", content.read(8))
            if version != VERSION or name != SPECIFICATION:
                raise ModelError(
                    f"{MODEL} holds a {name[:40]} in version {version} of the format",
                    where=folder,
                    remedy=f"give a {SPECIFICATION} in version {VERSION}",
                )
            if count > MOST_ARRAYS:
                raise ValueError
            arrays = dict(_array(content, size) for _ in range(count))
            (aliases,) = struct.unpack("<I", content.read(4))
            if aliases > MOST_ARRAYS:
                raise ValueError
            for _ in range(aliases):
                alias, target = _name(content), _name(content)
                arrays[alias] = arrays[target]
    except (OSError, struct.error, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise ModelError(f"{MODEL} is damaged", where=folder, remedy="copy the folder again") from error
    return arrays


def is_quantized(arrays: Arrays) -> bool:
    """Whether weights are stored as whole numbers."""
    return any(name.endswith("/weight_scale") for name in arrays)


def whisper_config(arrays: Arrays, units: TokenizerUnits) -> WhisperConfig:
    """The sizes of a network, with the labels that transformers names in the same place."""
    mels, dim = arrays["encoder/conv1/weight"].shape[1], arrays["decoder/embeddings/weight"].shape[1]
    settings: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), units.eos_id)
    settings["decoder_start_token_id"] = units.special_id("<|startoftranscript|>") or 0
    for side in ("encoder", "decoder"):
        layers = {name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_")}
        settings[f"{side}_layers"] = len(layers - {"layer_norm"})
        settings[f"{side}_attention_heads"] = int(arrays[f"{side}/num_heads"])
        settings[f"{side}_ffn_dim"] = arrays[f"{side}/layer_0/ffn/linear_0/bias"].shape[0]
    sizes = {
        "vocab_size": arrays["decoder/embeddings/weight"].shape[0],
        "num_mel_bins": mels,
        "d_model": dim,
        "max_source_positions": arrays["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": arrays["decoder/position_encodings/encodings"].shape[0],
    }
    return WhisperConfig.of(sizes | settings)


def whisper_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The tensors of a Whisper by the names of transformers, in float32 whatever the file holds."""
    embeddings = _weight(arrays, "decoder/embeddings/weight")
    found = {"model.decoder.embed_tokens.weight": embeddings, "proj_out.weight": embeddings}
    for side in ("encoder", "decoder"):
        ours = f"model.{side}"
        found[f"{ours}.embed_positions.weight"] = _weight(arrays, f"{side}/position_encodings/encodings")
        found |= _norm(arrays, f"{side}/layer_norm", f"{ours}.layer_norm")
        count = len({name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_")} - {"layer_norm"})
        for layer in range(count):
            found |= _layer(arrays, f"{side}/layer_{layer}", f"{ours}.layers.{layer}", cross=side == "decoder")
    for number in (1, 2):
        found |= _linear(arrays, f"encoder/conv{number}", f"model.encoder.conv{number}")
    return found


def generation_values(folder: Path, units: TokenizerUnits) -> dict[str, Any]:
    """What `generation_config.json` of transformers says, from CTranslate2's `config.json` and the tokenizer."""
    values = read_json(folder, "config.json")
    languages = {}
    for label in values.get("lang_ids") or []:
        token = units.tokenizer.convert_ids_to_tokens(label) if type(label) is int else None
        if token is None:
            raise ModelError("config.json names a language that is no label", where=folder, remedy="copy it again")
        languages[str(token)] = label
    tasks = {name: units.special_id(f"<|{name}|>") for name in ("transcribe", "translate")}
    return {
        "decoder_start_token_id": units.special_id("<|startoftranscript|>") or 0,
        "eos_token_id": units.eos_id,
        "no_timestamps_token_id": units.special_id("<|notimestamps|>"),
        "is_multilingual": bool(languages),
        "lang_to_id": languages,
        "task_to_id": {name: label for name, label in tasks.items() if label is not None},
        "suppress_tokens": [label for label in values.get("suppress_ids") or [] if label != -1],
        "begin_suppress_tokens": [label for label in values.get("suppress_ids_begin") or [] if label != -1],
        "alignment_heads": values.get("alignment_heads") or [],
    }


def _name(content: BinaryIO) -> str:
    (length,) = struct.unpack("<H", content.read(2))
    read = content.read(length)
    if length > LONGEST_NAME or len(read) < length:
        raise ValueError
    return read.rstrip(b"\0").decode()


def _array(content: BinaryIO, size: int) -> tuple[str, NDArray[Any]]:
    name = _name(content)
    (rank,) = struct.unpack("<B", content.read(1))
    shape = struct.unpack(f"<{rank}I", content.read(4 * rank))
    number, length = struct.unpack("<BI", content.read(5))
    if length > size - content.tell() or number > BFLOAT16:
        raise ValueError
    stored = np.dtype("<u2") if number == BFLOAT16 else TYPES[number]
    values = np.frombuffer(content.read(length), stored).reshape(shape)
    if number == BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return name, values


def _weight(arrays: Arrays, name: str) -> Tensor:
    values = arrays[name]
    if np.issubdtype(values.dtype, np.floating):
        return torch.from_numpy(values.astype(np.float32))
    scale = np.asarray(arrays[f"{name}_scale"], np.float32)
    whole = values.astype(np.float32)
    whole /= scale.reshape(scale.shape + (1,) * (values.ndim - scale.ndim))
    return torch.from_numpy(whole)


def _linear(arrays: Arrays, name: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.weight": _weight(arrays, f"{name}/weight"), f"{ours}.bias": _weight(arrays, f"{name}/bias")}


def _norm(arrays: Arrays, name: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.weight": _weight(arrays, f"{name}/gamma"), f"{ours}.bias": _weight(arrays, f"{name}/beta")}


def _layer(arrays: Arrays, name: str, ours: str, *, cross: bool) -> dict[str, Tensor]:
    found = _norm(arrays, f"{name}/ffn/layer_norm", f"{ours}.final_layer_norm")
    for number in (0, 1):
        found |= _linear(arrays, f"{name}/ffn/linear_{number}", f"{ours}.fc{number + 1}")
    for attention, (theirs, first, last) in LINEAR.items() if cross else [("self_attn", LINEAR["self_attn"])]:
        found |= _norm(arrays, f"{name}/{theirs}/layer_norm", f"{ours}.{attention}_layer_norm")
        found |= _linear(arrays, f"{name}/{theirs}/linear_{last}", f"{ours}.{attention}.out_proj")
        parts = (_linear(arrays, f"{name}/{theirs}/linear_{number}", "") for number in range(first, last))
        found |= dict(_projections(parts, f"{ours}.{attention}"))
    return found


def _projections(parts: Iterator[dict[str, Tensor]], ours: str) -> Iterator[tuple[str, Tensor]]:
    """Queries, keys and values, which the file has in one or two matrices; Whisper's keys have no bias."""
    linear = [*parts]
    weights, biases = (torch.cat([part[name] for part in linear]).chunk(3) for name in (".weight", ".bias"))
    for projection, weight, bias in zip(PROJECTIONS, weights, biases, strict=True):
        yield f"{ours}.{projection}.weight", weight
        if projection != "k_proj":
            yield f"{ours}.{projection}.bias", bias
