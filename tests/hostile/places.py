"""Attacks by where files are and what they are: shards elsewhere, links, pipes, devices."""

import json
import os
import shutil
from pathlib import Path

from tests.hostile.attack import add, attack, config, entries, move_out, shard, void


@attack()
def shard_in_the_parent_folder(model: Path) -> None:
    shard(model, "../outside/secret.safetensors", move_to=model.parent / "outside" / "secret.safetensors")
    (model / "other.safetensors").write_bytes(b"")


@attack()
def shard_below_a_detour(model: Path) -> None:
    (model / "sub").mkdir()
    shard(model, "sub/../../outside/secret.safetensors", move_to=model.parent / "outside" / "secret.safetensors")
    (model / "other.safetensors").write_bytes(b"")


@attack()
def shard_with_an_absolute_path(model: Path) -> None:
    secret = model.parent / "outside" / "secret.safetensors"
    shard(model, str(secret), move_to=secret)
    (model / "other.safetensors").write_bytes(b"")


@attack()
def shard_that_is_a_link_out(model: Path) -> None:
    shard(model, "model-00001-of-00001.safetensors")
    move_out(model / "model-00001-of-00001.safetensors")


@attack()
def shard_in_a_linked_folder(model: Path) -> None:
    secret = model.parent / "outside" / "secret.safetensors"
    (model / "sub").symlink_to(secret.parent)
    shard(model, "sub/secret.safetensors", move_to=secret)
    (model / "other.safetensors").write_bytes(b"")


@attack()
def weights_that_are_a_link_out(model: Path) -> None:
    move_out(model / "model.safetensors")


@attack()
def weights_named_outside(model: Path) -> None:
    secret = model.parent / "outside" / "secret.safetensors"
    shutil.copy(model / "model.safetensors", secret)
    config(model, transformers_weights="../outside/secret.safetensors")


@attack()
def missing_shards(model: Path) -> None:
    shard(model, "model-00001-of-00002.safetensors")
    (model / "model-00001-of-00002.safetensors").rename(model / "model-00002-of-00002.safetensors")


@attack()
def index_of_100_megabytes(model: Path) -> None:
    shard(model, "model-00001-of-00001.safetensors")
    names = (f"tensor.with.a.long.name.{i:09d}" for i in range(1_400_000))
    text = f'{{"metadata": {{}}, "weight_map": {{{entries(names, "model-00001-of-00001")}}}}}'
    (model / "model.safetensors.index.json").write_text(text)


@attack("llm", refused=False)
def index_of_nearly_4_megabytes(model: Path) -> None:
    shard(model, "model-00001-of-00001.safetensors")
    file = model / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"] |= {f"t{i}": "model-00001-of-00001.safetensors" for i in range(75_000)}
    file.write_text(json.dumps(index))


@attack()
def index_of_another_kind(model: Path) -> None:
    shard(model, "model-00001-of-00001.safetensors")
    (model / "model.safetensors.index.json").write_text('{"metadata": [], "weight_map": {"a": {"b": []}}}')


@attack()
def shards_of_a_distributed_checkpoint(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "shard-00001-model-00001-of-00001.safetensors")


for _name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "decoding.yaml"):
    add(f"link_out_as_{_name}", lambda model, name=_name: void(move_out(model / name)))
add("link_out_as_preprocessor_config", lambda model: link_secret(model, "preprocessor_config.json"), "encoder")
add("link_out_as_special_tokens_map", lambda model: link_secret(model, "special_tokens_map.json"))
add("link_out_as_added_tokens", lambda model: link_secret(model, "added_tokens.json"))
add("link_out_as_chat_template", lambda model: link_secret(model, "chat_template.jinja"))
add("link_out_as_extra_chat_template", lambda model: link_secret(model, "additional_chat_templates/x.jinja"))


def link_secret(model: Path, name: str) -> None:
    secret = model.parent / "outside" / "secret.json"
    secret.write_text("{}")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to(secret)


@attack()
def dangling_link_as_config(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(model / "nothing")


@attack()
def dangling_link_as_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(model / "nothing")


@attack()
def endless_device_as_config(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/dev/zero")


@attack()
def endless_device_as_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("/dev/zero")


@attack()
def circular_links(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(model / "other.json")
    (model / "other.json").symlink_to(model / "config.json")


def fifo(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)


def directory(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).mkdir()


for _name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "decoding.yaml"):
    add(f"fifo_as_{_name}", lambda model, name=_name: fifo(model, name))
    add(f"directory_as_{_name}", lambda model, name=_name: directory(model, name))
add("fifo_as_preprocessor_config", lambda model: fifo(model, "preprocessor_config.json"), "encoder")
