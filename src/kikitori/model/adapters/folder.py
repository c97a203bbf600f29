"""Adapter folders: what a domain adds to a recogniser, kept apart from it.

A folder holds `kikitori_adapter.json` (which base it is for, what it adapts), the LLM's LoRA in PEFT's own form
(`adapter_config.json`, `adapter_model.safetensors`) and, where bridge, encoder or the whole LLM were trained, their
changed tensors in `components.safetensors`. Nothing else of it is read, no name in it is followed, and it fits no base
but its own.
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kikitori.errors import ConfigError, DataError, KikitoriWarning, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.config import validate
from kikitori.io.files import replace_folder, write_text
from kikitori.io.model_folder import copy_search_files
from kikitori.model.adapters.lora import Lora, attach_lora, is_adapted, is_live
from kikitori.model.folder import LARGEST, LoadedModel, load_model, save_model
from kikitori.model.safety.config import read_json
from kikitori.model.safety.weights import PICKLES, check_safetensors
from kikitori.model.speech_llm import SpeechLLM
from kikitori.model.weights import check_finite, weights_digest
from kikitori.types import Component

T = TypeVar("T")

INFO, LORA_CONFIG, LORA_WEIGHTS = "kikitori_adapter.json", "adapter_config.json", "adapter_model.safetensors"
COMPONENT_WEIGHTS = "components.safetensors"
PREFIXES: dict[Component, tuple[str, ...]] = {
    "whole_llm": ("llm.",),
    "bridge": ("bridge.", "interface."),
    "encoder": ("acoustic.",),
}
"""Where the components that are adapted without LoRA stand in a `SpeechLLM`."""

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Positive = Annotated[float, Field(gt=0.0)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
_VOLATILE = frozenset({"transformers_version", "_name_or_path", "dtype", "torch_dtype"})
_INFORMATIVE = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type", "fan_in_fan_out"}
)
"""Entries of `adapter_config.json` that decide nothing here; the base is the one that the user names."""


@dataclass(frozen=True, config=_STRICT)
class Fingerprint:
    """SHA-256 of what makes a base recogniser the one that it is."""

    config: str
    weights: str


@dataclass(frozen=True, config=_STRICT)
class AdapterInfo:
    """Contents of `kikitori_adapter.json`.

    Attributes:
        format: Version of this file.
        base_name: What the base was called when the adapter was made; only ever shown.
        base: Fingerprint of the base.
        components: What is adapted.
        labels_per_second: The highest rate of labels that base and adapter have seen (see `TrainedOn`).
        max_seconds: The longest utterance that they have seen.
    """

    format: Literal[1]
    base_name: str
    base: Fingerprint
    components: Annotated[list[Component], Field(min_length=1)]
    labels_per_second: Annotated[_Positive, Field(le=LARGEST["labels_per_second"])]
    max_seconds: Annotated[_Positive, Field(le=LARGEST["max_seconds"])]


@dataclass(frozen=True, config=_STRICT)
class _LoraSettings:
    """The entries of `adapter_config.json` that may differ from PEFT's defaults."""

    peft_type: Literal["LORA"]
    r: Annotated[int, Field(ge=1)]
    lora_alpha: _Positive
    lora_dropout: Annotated[float, Field(ge=0.0, le=1.0)]
    target_modules: Annotated[list[_Name], Field(min_length=1, max_length=1000)]
    use_rslora: bool = False


_LORA_KEYS = frozenset(field.name for field in dataclasses.fields(_LoraSettings))


def fingerprint(path_or_id: str | Path, model: SpeechLLM) -> Fingerprint:
    """The fingerprint of a recogniser that was just loaded from a folder or the hub; about a second per GB."""
    config = json.dumps(_lasting(read_json(path_or_id, "config.json")), sort_keys=True)
    return Fingerprint(hashlib.sha256(config.encode()).hexdigest(), weights_digest(model))


def save_adapter(directory: Path, model: SpeechLLM, info: AdapterInfo) -> None:
    """Writes what was adapted: the LoRA of the LLM, and of other components whatever training changes.

    Args:
        directory: An existing folder.
        model: The adapted recogniser; parameters that do not require gradients are those of the base.
        info: What the folder says of itself.
    """
    if "llm" in info.components:
        _save_lora(directory, model.llm)
    changed = {name: tensor.contiguous() for name, tensor in _changed(model, info.components)}
    if changed:
        save_file(changed, directory / COMPONENT_WEIGHTS)
    write_text(directory / INFO, json.dumps(dataclasses.asdict(info), indent=1) + "\n")


def read_info(adapter: str | Path) -> AdapterInfo:
    """What an adapter folder, or that of a run, says of itself.

    Raises:
        ModelError: It is missing or damaged.
    """
    folder = _adapter_folder(adapter)
    return _checked(AdapterInfo, read_json(folder, INFO), folder, INFO)


def load_adapter(loaded: LoadedModel, base: str | Path, adapter: str | Path) -> LoadedModel:
    """Switches an adapter on; warns if it changes nothing.

    Args:
        loaded: The base as `load_model(base)` gave it; its network is changed in place.
        base: Folder or hub id of the base.
        adapter: An adapter folder, or the run folder of the adaptation.

    Raises:
        ModelError: The folder is damaged, holds anything but LoRA, or belongs to another base.
    """
    folder = _adapter_folder(adapter)
    model: Any = loaded.model.speech_llm
    info = read_info(folder)
    if model is None:
        raise ModelError("an adapter needs a speech LLM", where=base, remedy="give the base that it was made for")
    _check_base(info, fingerprint(base, model), base, folder)
    dead = []
    if set(info.components) & PREFIXES.keys():
        before = _outputs(model)
        _load_components(model, folder, info.components)
        dead += [COMPONENT_WEIGHTS] if all(map(torch.equal, before, _outputs(model))) else []
    if "llm" in info.components:
        _load_lora(model, folder)
        dead += [] if is_live(model.llm) else [LORA_WEIGHTS]
    model.eval()  # type: ignore[no-untyped-call]
    if dead:
        what = f"the adapter changes nothing ({' and '.join(dead)})"
        warnings.warn(f"{folder}: {what}; train it longer", KikitoriWarning, stacklevel=2)
    trained_on = replace(loaded.trained_on, labels_per_second=info.labels_per_second, max_seconds=info.max_seconds)
    return LoadedModel(model, loaded.units, trained_on)


def merge_adapter(base: str | Path, adapter: str | Path, directory: Path) -> None:
    """Writes base and adapter as one plain recogniser folder, for use without PEFT.

    Raises:
        ModelError: See `load_adapter`.
        DataError: The folder to write is in use.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise DataError("is there already", where=directory, remedy="choose another folder")
    loaded = load_adapter(load_model(base), base, adapter)
    model: Any = loaded.model
    if is_adapted(model.llm):
        model.llm = model.llm.merge_and_unload()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(directory) as staging:
        save_model(staging, model, loaded.units, loaded.trained_on)
        copy_search_files(Path(base), staging)


def num_bytes(folder: Path) -> int:
    """Size of an adapter on disk."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def num_parameters(folder: Path) -> int:
    """Numbers that an adapter holds, statistics of adapted components included."""
    files = [folder / name for name in (LORA_WEIGHTS, COMPONENT_WEIGHTS) if (folder / name).is_file()]
    return sum(torch.Size(shape).numel() for file in files for shape in _shapes(file).values())


def _lasting(values: Any) -> Any:
    """What of config.json describes the model, and not how and by what it was written."""
    if isinstance(values, dict):
        return {key: _lasting(value) for key, value in values.items() if key not in _VOLATILE}
    return values


def _save_lora(directory: Path, llm: Any) -> None:
    """As PEFT does, but with those settings alone that every version of PEFT knows and that are ours to decide."""
    from peft import get_peft_model_state_dict

    config = json.loads(json.dumps(llm.peft_config["default"].to_dict(), default=sorted))
    kept = {key: config[key] for key in ("task_type", "fan_in_fan_out", *_LORA_KEYS)}
    kept |= {"base_model_name_or_path": None, "bias": "none", "inference_mode": True}
    write_text(directory / LORA_CONFIG, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    tensors = get_peft_model_state_dict(llm, save_embedding_layers=False)
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / LORA_WEIGHTS, {"format": "pt"})


def _changed(model: SpeechLLM, components: list[Component]) -> Iterator[tuple[str, Tensor]]:
    """Parameters that learn, tied ones once, and statistics."""
    names = _prefixes(components)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        if name.startswith(names) and (name in learning or name not in parameters):
            yield name, tensor


def _prefixes(components: Sequence[Component]) -> tuple[str, ...]:
    return tuple(prefix for component in components for prefix in PREFIXES.get(component, ()))


def _adapter_folder(adapter: str | Path) -> Path:
    folder = Path(adapter)
    if not (folder / INFO).is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    if not folder.is_dir():
        raise ModelError("no such adapter folder", where=adapter, remedy="give a folder that kikitori adapt wrote")
    if not (folder / INFO).is_file():
        raise ModelError(
            f"{INFO} is missing, which says what base the adapter is for",
            where=adapter,
            remedy="give a folder that kikitori adapt wrote",
        )
    return folder


def _checked(schema: type[T], values: dict[str, Any], folder: Path, name: str) -> T:
    try:
        return validate(schema, values, name)
    except ConfigError as error:
        raise ModelError(f"{error.where}: {error.what}", where=folder, remedy="copy the folder again") from None


def _check_base(info: AdapterInfo, found: Fingerprint, base: str | Path, folder: Path) -> None:
    differs = [part for part in ("config", "weights") if getattr(info.base, part) != getattr(found, part)]
    if differs:
        raise ModelError(
            f"the adapter was made for another base ('{info.base_name}'); {' and '.join(differs)} differ from {base}",
            where=folder,
            remedy="give its base with --model",
        )


def _load_components(model: SpeechLLM, folder: Path, components: Sequence[Component]) -> None:
    names = _prefixes(components)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(names)}
    _copy(own, _tensors(folder, COMPONENT_WEIGHTS, own))


def _load_lora(model: SpeechLLM, folder: Path) -> None:
    """Attaches LoRA to the LLM and fills it; PEFT itself reads nothing of the folder."""
    if find_spec("peft") is None:
        raise ModelError("adapters need the package peft", where=folder, remedy="pip install 'kikitori[train]'")
    settings = _lora_settings(folder)
    ranks = {shape[0] for name, shape in _shapes(_file(folder, LORA_WEIGHTS)).items() if ".lora_A." in name}
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
    found = _tensors(folder, LORA_WEIGHTS, own)
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise ModelError(f"{LORA_WEIGHTS} lacks {missing[0]}", where=folder, remedy="copy the folder again")
    _copy(own, found)
    model.llm.requires_grad_(False)


def _lora_settings(folder: Path) -> _LoraSettings:
    """What `adapter_config.json` asks for; whatever else PEFT could do must be left at its default."""
    from peft import LoraConfig

    values = read_json(folder, LORA_CONFIG)
    defaults: dict[str, Any] = json.loads(json.dumps(LoraConfig().to_dict(), default=str))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        if key not in _LORA_KEYS | _INFORMATIVE and (key not in defaults or value != defaults[key]):
            raise ModelError(f"{LORA_CONFIG}: '{key}' is not supported", where=folder, remedy="use plain LoRA")
    return _checked(_LoraSettings, {key: values[key] for key in _LORA_KEYS & values.keys()}, folder, LORA_CONFIG)


def _file(folder: Path, name: str) -> Path:
    if (folder / name).is_file():
        return folder / name
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            where=folder,
            remedy="save the adapter as safetensors",
        )
    raise ModelError(f"{name} is missing", where=folder, remedy="copy the folder again")


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    check_safetensors(file)
    with safe_open(file, "pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118  (no dict)


def _tensors(folder: Path, name: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, each of which must fit one of the model's."""
    file = _file(folder, name)
    for key, shape in _shapes(file).items():
        if key not in own or tuple(own[key].shape) != shape:
            raise ModelError(f"{name} does not fit the base at {key}", where=folder, remedy="copy the folder again")
    with safe_open(file, "pt") as tensors:
        found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    for key, tensor in found.items():
        if tensor.dtype != own[key].dtype:
            raise ModelError(f"{name}: {key} is not {own[key].dtype}", where=folder, remedy="train the adapter again")
        check_finite(folder, key, tensor)
    return found


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        own[name].copy_(tensor)


@torch.inference_mode()
def _outputs(model: SpeechLLM) -> list[Tensor]:
    """What the recogniser makes of a second of noise: logits of a few labels, and of the CTC head if it has one."""
    noise = 0.1 * torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    acoustic = model.acoustic
    encoded = acoustic.encode(noise, torch.tensor([SAMPLE_RATE]))
    logits, _ = model.label_logits(encoded, [[0, 1, 2, 3]], [[3, 2, 1]])
    return [logits, *(acoustic.log_probs(encoded)[:1] if acoustic.config.ctc_layers else ())]
