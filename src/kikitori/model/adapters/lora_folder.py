"""The LLM's LoRA in PEFT's own form, of which PEFT itself reads nothing here."""

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors.torch import save_file

from kikitori.errors import ModelError
from kikitori.io.files import write_text
from kikitori.model.adapters.info import STRICT, Positive, checked
from kikitori.model.adapters.lora import Lora, attach_lora
from kikitori.model.adapters.tensors import copy_tensors, fitting_tensors, shapes_of, tensor_file
from kikitori.model.safety.config import read_json
from kikitori.model.speech_llm import SpeechLLM

LORA_CONFIG, LORA_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
_INFORMATIVE = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type", "fan_in_fan_out"}
)
"""Entries of `adapter_config.json` that decide nothing here; the base is the one that the user names."""


@dataclass(frozen=True, config=STRICT)
class _LoraSettings:
    """The entries of `adapter_config.json` that may differ from PEFT's defaults."""

    peft_type: Literal["LORA"]
    r: Annotated[int, Field(ge=1)]
    lora_alpha: Positive
    lora_dropout: Annotated[float, Field(ge=0.0, le=1.0)]
    target_modules: Annotated[list[_Name], Field(min_length=1, max_length=1000)]
    use_rslora: bool = False


_LORA_KEYS = frozenset(field.name for field in dataclasses.fields(_LoraSettings))


def save_lora(directory: Path, llm: Any) -> None:
    """As PEFT does, but with those settings alone that every version of PEFT knows and that are ours to decide."""
    from peft import get_peft_model_state_dict

    config = json.loads(json.dumps(llm.peft_config["default"].to_dict(), default=sorted))
    kept = {key: config[key] for key in ("task_type", "fan_in_fan_out", *_LORA_KEYS)}
    kept |= {"base_model_name_or_path": None, "bias": "none", "inference_mode": True}
    write_text(directory / LORA_CONFIG, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    tensors = get_peft_model_state_dict(llm, save_embedding_layers=False)
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / LORA_WEIGHTS, {"format": "pt"})


def load_lora(model: SpeechLLM, folder: Path) -> None:
    """Attaches LoRA to the LLM and fills it; PEFT itself reads nothing of the folder."""
    if find_spec("peft") is None:
        raise ModelError("adapters need the package peft", where=folder, remedy="pip install 'kikitori[train]'")
    settings = _lora_settings(folder)
    ranks = {shape[0] for name, shape in shapes_of(tensor_file(folder, LORA_WEIGHTS)).items() if ".lora_A." in name}
    if ranks != {settings.r}:  # a false one could ask for any amount of memory
        raise ModelError(f"{LORA_CONFIG}: r is not the rank of the weights", where=folder, remedy="copy it again")
    try:
        model.llm = attach_lora(
            model.llm,
            Lora(
                rank=settings.r,
                alpha=settings.lora_alpha,
                dropout=settings.lora_dropout,
                targets=settings.target_modules,
                rank_stabilised=settings.use_rslora,
            ),
        )
    except ModelError as error:
        raise ModelError(error.what, where=folder, remedy="copy the folder again") from None
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(model.llm, save_embedding_layers=False)
    found = fitting_tensors(folder, LORA_WEIGHTS, own)
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise ModelError(f"{LORA_WEIGHTS} lacks {missing[0]}", where=folder, remedy="copy the folder again")
    copy_tensors(own, found)
    model.llm.requires_grad_(False)


def _lora_settings(folder: Path) -> _LoraSettings:
    """What `adapter_config.json` asks for; whatever else PEFT could do must be left at its default."""
    from peft import LoraConfig

    values = read_json(folder, LORA_CONFIG)
    defaults: dict[str, Any] = json.loads(json.dumps(LoraConfig().to_dict(), default=str))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        if key not in _LORA_KEYS | _INFORMATIVE and (key not in defaults or value != defaults[key]):
            raise ModelError(f"{LORA_CONFIG}: '{key}' is not supported", where=folder, remedy="use plain LoRA")
    return checked(_LoraSettings, {key: values[key] for key in _LORA_KEYS & values.keys()}, folder, LORA_CONFIG)
