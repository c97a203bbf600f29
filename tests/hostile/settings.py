"""Attacks by config.json, generation_config.json and what they lead to."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.hostile.attack import AUTO_MAP, add, attack, canary_code, config, edit, insert, plant_module


@attack()
def config_of_70_megabytes(model: Path) -> None:
    insert(model / "config.json", f'"x": "{"x" * (70 << 20)}"')


@attack()
def config_of_many_small_values(model: Path) -> None:
    insert(model / "config.json", f'"x": [{"[]," * (20 << 20)}[]]')


@attack()
def config_of_4_megabytes_of_lists(model: Path) -> None:
    insert(model / "config.json", f'"x": [{"[]," * 1_300_000}[]]')


@attack()
def config_nested_deeply(model: Path) -> None:
    insert(model / "config.json", f'"x": {"[" * 100_000}{"]" * 100_000}')


@attack("llm")
def config_nested_900_levels(model: Path) -> None:
    insert(model / "config.json", f'"x": {"[" * 900}{"]" * 900}')


@attack()
def config_with_duplicate_keys(model: Path) -> None:
    insert(model / "config.json", '"model_type": "evil"')


@attack()
def config_with_endless_integer(model: Path) -> None:
    config(model, eos_id=10**30)


@attack()
def config_with_too_many_digits(model: Path) -> None:
    insert(model / "config.json", f'"x": {"9" * 100_000}')


for _value in ("NaN", "Infinity", "-Infinity", "1e999"):
    add(f"config_with_{_value}", lambda model, value=_value: insert(model / "config.json", f'"x": {value}'))


def with_code(model: Path, keys: str, **changes: Any) -> None:
    plant_module(model)
    config(model, keys, auto_map=AUTO_MAP, **changes)


add("code_for_an_unknown_model", lambda model: with_code(model, "", model_type="evil"), "llm")
add("code_for_an_unknown_encoder", lambda model: with_code(model, "", model_type="evil"), "encoder")
add("code_for_a_known_model", lambda model: with_code(model, ""), "llm", refused=False)
add("code_for_a_recogniser", lambda model: with_code(model, ""), refused=False)
add("code_for_a_nested_model", lambda model: with_code(model, "llm_config", model_type="evil"))
add(
    "code_for_a_nested_encoder",
    lambda model: with_code(model, "acoustic_config.encoder_config", model_type="hubert", trust_remote_code=True),
    refused=False,
)
add("kernel_as_attention", lambda model: config(model, _attn_implementation="owner/kernel"), "llm")
add("kernel_as_nested_attention", lambda model: config(model, "llm_config", attn_implementation="owner/kernel@main"))
add(
    "kernel_as_nested_experts",
    lambda model: config(model, "llm_config", experts_implementation="owner/kernel:Experts"),
)
add("kernel_as_attention_by_part", lambda model: config(model, attn_implementation={"llm_config": "owner/kernel"}))

SIZE_ATTACKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ten_million_layers": ("recogniser", "llm_config", {"num_hidden_layers": 10**7}),
    "ten_million_encoder_layers": ("recogniser", "acoustic_config.encoder_config", {"num_hidden_layers": 10**7}),
    "ten_million_layers_of_an_llm": ("llm", "", {"num_hidden_layers": 10**7}),
    "ten_million_layers_of_an_encoder": ("encoder", "", {"num_hidden_layers": 10**7}),
    "nine_hundred_layers": ("recogniser", "llm_config", {"num_hidden_layers": 900}),
    "a_billion_hidden_units": ("recogniser", "llm_config", {"hidden_size": 10**9, "intermediate_size": 10**9}),
    "a_billion_hidden_units_of_an_encoder": ("encoder", "", {"intermediate_size": 10**9}),
    "a_billion_words": ("recogniser", "llm_config", {"vocab_size": 10**9}),
    "fifteen_million_words": ("llm", "", {"vocab_size": 15 * 10**6}),
    "feed_forward_of_three_million": ("recogniser", "llm_config", {"intermediate_size": 3 * 10**6}),
    "negative_size": ("recogniser", "llm_config", {"hidden_size": -32}),
    "negative_layers": ("recogniser", "llm_config", {"num_hidden_layers": -1}),
    "size_of_text": ("recogniser", "llm_config", {"intermediate_size": "64"}),
    "size_of_list": ("recogniser", "llm_config", {"hidden_size": [32, 32]}),
    "size_of_float": ("recogniser", "llm_config", {"intermediate_size": 1e300}),
    "a_million_ctc_heads": ("acoustic", "", {"ctc_layers": list(range(1_000_000))}),
    "a_hundred_million_units": ("acoustic", "", {"num_units": 10**8}),
    "ctc_head_on_a_missing_layer": ("acoustic", "", {"ctc_layers": [2, 7]}),
    "ctc_head_on_layer_zero": ("acoustic", "", {"ctc_layers": [0]}),
    "a_billion_frames_per_position": ("recogniser", "", {"bridge_stride": 10**9}),
    "ten_million_frames_per_position": ("recogniser", "", {"bridge_stride": 10**7}),
    "a_billion_class_names": ("llm", "", {"num_labels": 10**9, "id2label": None, "label2id": None}),
    "a_billion_layer_kinds": ("llm", "", {"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}),
    "a_quadratic_mask": ("llm", "", {"model_type": "gpt2", "n_positions": 60_000, "n_layer": 2, "n_embd": 32}),
    "a_table_of_python_numbers": ("llm", "", {"model_type": "ctrl", "n_positions": 10**7, "n_embd": 64}),
    "a_huge_convolution": ("encoder", "", {"conv_kernel": [10**8, 3, 3, 3, 3, 2, 2]}),
    "a_huge_stride": ("encoder", "", {"conv_stride": [10**9] * 7}),
    "a_thousand_convolutions": (
        "encoder",
        "",
        {"conv_dim": [16] * 10**6, "conv_kernel": [3] * 10**6, "conv_stride": [2] * 10**6},
    ),
    "endless_prompt": ("recogniser", "", {"prompt_before": [1] * 3_000_000}),
    "part_of_a_wrong_type": ("recogniser", "", {"acoustic_config": [1, 2]}),
    "part_that_is_text": ("recogniser", "acoustic_config", {"encoder_config": "hubert"}),
    "part_of_another_kind": ("recogniser", "acoustic_config", {"encoder_config": {"model_type": "bert"}}),
    "part_within_itself": ("recogniser", "", {"llm_config": {"model_type": "kikitori_speech_llm"}}),
    "speech_encoder_as_llm": ("llm", "", {"model_type": "hubert"}),
    "translator_as_llm": ("llm", "", {"model_type": "t5"}),
    "bitsandbytes": ("recogniser", "", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    "gptq": ("llm", "", {"quantization_config": {"quant_method": "gptq", "bits": 4, "dataset": "/etc/passwd"}}),
    "quanto_inside": ("recogniser", "llm_config", {"quantization_config": {"quant_method": "quanto"}}),
    "torchao": ("llm", "", {"quantization_config": {"quant_method": "torchao", "quant_type": "int4_weight_only"}}),
    "methods_replaced": ("llm", "", {"get_text_config": "x", "to_dict": "y"}),
    "dtype_that_is_a_function": ("llm", "", {"dtype": "load"}),
    "layers_of_their_own": ("llm", "", {"per_layer_config": {"0": {"intermediate_size": 10**9}}}),
}
for _name, (_loader, _keys, _changes) in SIZE_ATTACKS.items():
    add(_name, lambda model, keys=_keys, changes=_changes: config(model, keys, **changes), _loader)


@attack("llm")
def config_named_outside(model: Path) -> None:
    secret = model.parent / "outside" / "config.0.0.1.json"
    shutil.copy(model / "config.json", secret)
    config(model, configuration_files=["../outside/config.0.0.1.json"])


@attack("llm")
def adapter_with_a_base_elsewhere(model: Path) -> None:
    shutil.copytree(model, model.parent / "outside" / "base")
    base = {"base_model_name_or_path": str(model.parent / "outside" / "base"), "peft_type": "LORA"}
    (model / "adapter_config.json").write_text(json.dumps(base))


@attack()
def adapter_in_a_recogniser(model: Path) -> None:
    adapter_with_a_base_elsewhere(model)


@attack(refused=False)
def names_of_other_folders(model: Path) -> None:
    elsewhere = str(model.parent / "outside" / "base")
    shutil.copytree(model, elsewhere)
    config(model, _name_or_path=elsewhere, name_or_path=elsewhere, base_model=elsewhere)
    config(model, "llm_config", _name_or_path=elsewhere, base_model_name_or_path=elsewhere)
    edit(model / "tokenizer_config.json", name_or_path=elsewhere)


@attack("llm", refused=False)
def custom_generate(model: Path) -> None:
    (model / "custom_generate").mkdir()
    plant_module(model / "custom_generate", "generate")
    (model / "custom_generate" / "generate.py").write_text(f"{canary_code(model)}\ndef generate(**_): pass\n")
    (model / "generation_config.json").write_text('{"custom_generate": ".", "trust_remote_code": true}')


for _key, _value in {
    "labels_per_second": 1e300,
    "max_seconds": 1e300,
}.items():
    add(
        f"generation_config_with_{_key}",
        lambda model, changes={_key: _value}: edit(model / "generation_config.json", **changes),
    )
add("generation_config_with_infinity", lambda model: insert(model / "generation_config.json", '"max_seconds": 1e999'))
add(
    "generation_config_of_70_megabytes",
    lambda model: insert(model / "generation_config.json", f'"x": "{"x" * 73_000_000}"'),
)
add(
    "generation_config_that_is_odd",
    lambda model: (
        (model / "generation_config.json").write_text('{"eos_token_id": {"a": 1}, "num_beams": "x"}') and None
    ),
    "llm",
    refused=False,
)
