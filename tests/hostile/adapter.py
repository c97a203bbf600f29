"""Attacks by adapter folders; the base that they are opened with lies below, in `base`."""

import pickle
from pathlib import Path

from tests.hostile.attack import (
    Exploit,
    attack,
    edit,
    first_tensor,
    insert,
    move_out,
    plant_module,
    weights,
    write_weights,
)

INFO, LORA, WEIGHTS = "kikitori_adapter.json", "adapter_config.json", "adapter_model.safetensors"


def lora(model: Path, **changes: object) -> None:
    edit(model / LORA, **changes)


@attack("adapter")
def adapter_pickle_alone(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Exploit(model)))


@attack("adapter")
def adapter_pickle_named_safetensors(model: Path) -> None:
    (model / WEIGHTS).write_bytes(pickle.dumps(Exploit(model)))


@attack("adapter", refused=False)
def adapter_pickle_beside(model: Path) -> None:
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Exploit(model)))
    (model / "training_args.bin").write_bytes(pickle.dumps(Exploit(model)))


@attack("adapter")
def adapter_components_pickle(model: Path) -> None:
    (model / "components.safetensors").unlink()
    (model / "components.pt").write_bytes(pickle.dumps(Exploit(model)))


@attack("adapter")
def adapter_weights_outside(model: Path) -> None:
    move_out(model / WEIGHTS)


@attack("adapter")
def adapter_settings_outside(model: Path) -> None:
    move_out(model / LORA)


@attack("adapter", refused=False)
def adapter_of_a_base_outside(model: Path) -> None:
    (model.parent / "outside" / "config.json").write_text("{}")
    lora(model, base_model_name_or_path=str(model.parent / "outside"), revision="main")
    edit(model / INFO, base_name=str(model.parent / "outside"))


@attack("adapter")
def adapter_with_code(model: Path) -> None:
    plant_module(model)
    lora(model, auto_mapping={"base_model_class": "Model", "parent_library": "evil"})


@attack("adapter")
def adapter_with_auto_map(model: Path) -> None:
    plant_module(model)
    edit(model / INFO, auto_map={"AutoModel": "evil.Model"})


@attack("adapter")
def adapter_runtime_config(model: Path) -> None:
    lora(model, runtime_config={"ephemeral_gpu_offload": True})


@attack("adapter")
def adapter_start_weights_outside(model: Path) -> None:
    (model.parent / "outside" / "weights.safetensors").write_bytes(b"")
    lora(model, init_lora_weights="lora_ga", lora_ga_config={"cache_file": str(model.parent / "outside")})


@attack("adapter")
def adapter_megatron(model: Path) -> None:
    plant_module(model)
    lora(model, megatron_config={}, megatron_core="evil")


@attack("adapter")
def adapter_of_another_kind(model: Path) -> None:
    lora(model, peft_type="PROMPT_TUNING")


@attack("adapter")
def adapter_rank_of_a_billion(model: Path) -> None:
    lora(model, r=10**9)


@attack("adapter")
def adapter_rank_pattern_of_a_billion(model: Path) -> None:
    lora(model, rank_pattern={".*": 10**9})


@attack("adapter")
def adapter_replicated_layers(model: Path) -> None:
    lora(model, layer_replication=[[0, 2]] * 100_000)


@attack("adapter")
def adapter_pattern_without_end(model: Path) -> None:
    lora(model, target_modules="(((a+)+)+)+$")


@attack("adapter")
def adapter_of_every_layer(model: Path) -> None:
    lora(model, target_modules="all-linear")


@attack("adapter")
def adapter_saves_modules(model: Path) -> None:
    lora(model, modules_to_save=["embed_out"])


@attack("adapter")
def adapter_rank_twice(model: Path) -> None:
    insert(model / LORA, '"r": 1')


@attack("adapter")
def adapter_deep_json(model: Path) -> None:
    insert(model / INFO, '"a": ' + "[" * 100_000 + "]" * 100_000)


@attack("adapter")
def adapter_without_limits(model: Path) -> None:
    edit(model / INFO, labels_per_second=1e300)


@attack("adapter")
def adapter_header_of_2_to_63_bytes(model: Path) -> None:
    (model / WEIGHTS).write_bytes((2**63).to_bytes(8, "little") + b"{}")


@attack("adapter")
def adapter_giant_tensor(model: Path) -> None:
    header, data = weights(model / "base")
    first_tensor(header)["shape"] = [2**40, 2**20]
    write_weights(model, header, data, name=WEIGHTS)


@attack("adapter")
def adapter_weights_of_its_base(model: Path) -> None:
    (model / "components.safetensors").write_bytes((model / "base" / "model.safetensors").read_bytes())


@attack("adapter")
def adapter_of_another_base(model: Path) -> None:
    edit(model / INFO, "base", weights="0" * 64)
