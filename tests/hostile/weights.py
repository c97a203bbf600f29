"""Attacks by weight files."""

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from tests.hostile.attack import (
    Exploit,
    attack,
    config,
    entries,
    first_tensor,
    shard,
    spoil_header,
    weights,
    write_weights,
)


@attack()
def pickle_alone(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit(model)))


@attack()
def pickle_named_safetensors(model: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Exploit(model)))


@attack()
def pickle_named_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_bytes(pickle.dumps(Exploit(model)))


@attack()
def pickle_named_config(model: Path) -> None:
    (model / "config.json").write_bytes(pickle.dumps(Exploit(model)))


@attack()
def pickle_as_shard(model: Path) -> None:
    import torch
    from safetensors.torch import load_file

    good = load_file(model / "model.safetensors")
    shard(model, "weights.bin", move_to=model / "other.safetensors")
    torch.save(good, model / "weights.bin")


@attack()
def pickle_as_named_weights(model: Path) -> None:
    import torch
    from safetensors.torch import load_file

    config(model, transformers_weights="adapter_model.bin")
    torch.save(load_file(model / "model.safetensors"), model / "adapter_model.bin")


@attack()
def zip_bomb_named_safetensors(model: Path) -> None:
    with zipfile.ZipFile(model / "model.safetensors", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (100 << 20))


@attack()
def header_of_2_to_63_bytes(model: Path) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")


@attack()
def header_longer_than_the_file(model: Path) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 90 << 20) + b'{"a": 1}')


@attack()
def header_of_spaces(model: Path) -> None:
    header, data = weights(model)
    write_weights(model, json.dumps(header).encode() + b" " * (99 << 20), data)


@attack()
def header_of_brackets(model: Path) -> None:
    write_weights(model, b'{"a":' + b"[" * (50 << 20))


@attack()
def header_of_a_million_tensors(model: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write_weights(model, f"{{{entries((f't{i}' for i in range(1_000_000)), empty)}}}".encode())


@attack("llm")
def more_tensors_than_a_header_may_hold(model: Path) -> None:
    header, data = weights(model)
    more = {
        f"more{i}": {"dtype": "U8", "shape": [1], "data_offsets": [len(data) + i, len(data) + i + 1]}
        for i in range(90_000)
    }
    write_weights(model, header | more, data + bytes(len(more)))


@attack("llm")
def header_with_endless_metadata(model: Path) -> None:
    header, data = weights(model)
    metadata = header.pop("__metadata__")
    more = entries((f"k{i}" for i in range(800_000)), "x" * 60)
    text = f'{{"__metadata__": {{{more}, {json.dumps(metadata)[1:]}, {json.dumps(header)[1:]}'
    write_weights(model, text.encode(), data)


@attack()
def overlapping_offsets(model: Path) -> None:
    def overlap(header: dict[str, Any]) -> None:
        same = [tensor for tensor in header.values() if tensor.get("shape") == [32]]
        same[1]["data_offsets"] = same[0]["data_offsets"]

    spoil_header(model, overlap)


@attack()
def offsets_behind_the_end(model: Path) -> None:
    def stretch(header: dict[str, Any]) -> None:
        first_tensor(header).update(shape=[2**30], data_offsets=[0, 2**32])

    spoil_header(model, stretch)


@attack()
def negative_offsets(model: Path) -> None:
    spoil_header(model, lambda header: first_tensor(header).update(data_offsets=[-8, 8]))


@attack()
def bytes_that_no_tensor_owns(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"#!/bin/sh\n" * 100)


@attack()
def overflowing_shape(model: Path) -> None:
    spoil_header(model, lambda header: first_tensor(header).update(shape=[2**32, 2**32, 4]))


@attack()
def negative_shape(model: Path) -> None:
    spoil_header(model, lambda header: first_tensor(header).update(shape=[-4, -8]))


@attack()
def shape_of_too_many_dimensions(model: Path) -> None:
    spoil_header(model, lambda header: first_tensor(header).update(shape=[1] * 100_000))


@attack()
def duplicate_tensors(model: Path) -> None:
    header, data = weights(model)
    name = next(name for name in header if name != "__metadata__")
    text = json.dumps(header)
    write_weights(model, f"{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}".encode(), data)


@attack()
def unknown_dtype(model: Path) -> None:
    spoil_header(model, lambda header: first_tensor(header).update(dtype="PICKLE"))


@attack()
def weights_of_nan(model: Path) -> None:
    header, data = weights(model)
    write_weights(model, header, struct.pack("<f", float("nan")) * (len(data) // 4))


@attack()
def weights_of_infinity(model: Path) -> None:
    header, data = weights(model)
    write_weights(model, header, data[:-4] + struct.pack("<f", float("inf")))


@attack("encoder")
def encoder_weights_of_nan(model: Path) -> None:
    header, data = weights(model)
    write_weights(model, header, struct.pack("<f", float("nan")) * (len(data) // 4))


@attack()
def missing_tensors(model: Path) -> None:
    write_weights(model, {"__metadata__": {"format": "pt"}})


@attack("llm")
def weights_of_another_shape(model: Path) -> None:
    def flatten(header: dict[str, Any]) -> None:
        for tensor in header.values():
            if "shape" in tensor and len(tensor["shape"]) == 2:
                tensor["shape"] = [tensor["shape"][0] * tensor["shape"][1]]

    spoil_header(model, flatten)
