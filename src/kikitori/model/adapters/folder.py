"""Adapter folders: what a domain adds to a recogniser, kept apart from it.

A folder holds `kikitori_adapter.json` (which base it is for, what it adapts), the LLM's LoRA in PEFT's own form
(`adapter_config.json`, `adapter_model.safetensors`) and, where bridge, encoder or the whole LLM were trained, their
changed tensors in `components.safetensors`. Nothing else of it is read, no name in it is followed, and it fits no base
but its own.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from kikitori.errors import DataError, KikitoriWarning, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import replace_folder, write_text
from kikitori.io.model_folder import copy_search_files
from kikitori.model.adapters.info import INFO, AdapterInfo, Fingerprint, adapter_folder, fingerprint, read_info
from kikitori.model.adapters.lora import is_adapted, is_live
from kikitori.model.adapters.lora_folder import LORA_WEIGHTS, load_lora, save_lora
from kikitori.model.adapters.tensors import copy_tensors, fitting_tensors, shapes_of
from kikitori.model.folder import LoadedModel, load_model, save_model
from kikitori.model.published.card import write_card
from kikitori.model.speech_llm import SpeechLLM
from kikitori.types import Component

T = TypeVar("T")

COMPONENT_WEIGHTS = "components.safetensors"
PREFIXES: dict[Component, tuple[str, ...]] = {
    "whole_llm": ("llm.",),
    "bridge": ("bridge.", "interface."),
    "encoder": ("acoustic.",),
}
"""Where the components that are adapted without LoRA stand in a `SpeechLLM`."""


def save_adapter(directory: Path, model: SpeechLLM, info: AdapterInfo) -> None:
    """Writes what was adapted into a folder: the LoRA of the LLM, and of other components whatever training changes.

    Parameters that do not require gradients are those of the base.
    """
    if "llm" in info.components:
        save_lora(directory, model.llm)
    changed = {name: tensor.contiguous() for name, tensor in _changed(model, info.components)}
    if changed:
        save_file(changed, directory / COMPONENT_WEIGHTS)
    write_text(directory / INFO, json.dumps(dataclasses.asdict(info), indent=1) + "\n")


def load_adapter(loaded: LoadedModel, base: str | Path, adapter: str | Path) -> LoadedModel:
    """Switches an adapter (its folder, or its run) on in the network of a base; warns if it changes nothing.

    Raises:
        ModelError: The folder is damaged, holds anything but LoRA, or belongs to another base.
    """
    folder = adapter_folder(adapter)
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
        load_lora(model, folder)
        dead += [] if is_live(model.llm) else [LORA_WEIGHTS]
    model.eval()  # type: ignore[no-untyped-call]
    if dead:
        what = f"the adapter changes nothing ({' and '.join(dead)})"
        warnings.warn(f"{folder}: {what}; train it longer", KikitoriWarning, stacklevel=2)
    trained_on = replace(loaded.trained_on, labels_per_second=info.labels_per_second, max_seconds=info.max_seconds)
    return replace(loaded, model=model, trained_on=trained_on)


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
        save_model(staging, model, loaded.units, loaded.trained_on, loaded.own_ctc_units)
        copy_search_files(Path(base), staging)
        write_card(
            staging,
            directory.name,
            f"The recogniser `{_name(base)}` with the adapter `{_name(adapter)}` merged into its weights by "
            "`kikitori merge`.\n\n```\nkikitori transcribe talk.flac --model THIS_FOLDER\n```",
            language=loaded.trained_on.language,
            base_models=[str(base)],
            relation="merge",
        )


def _name(folder: str | Path) -> str:
    """A hub id as it is, a folder without what lies above it."""
    return Path(folder).resolve().name if Path(folder).exists() else str(folder)


def num_bytes(folder: Path) -> int:
    """Size of an adapter on disk."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def num_parameters(folder: Path) -> int:
    """Numbers that an adapter holds, statistics of adapted components included."""
    files = [folder / name for name in (LORA_WEIGHTS, COMPONENT_WEIGHTS) if (folder / name).is_file()]
    return sum(torch.Size(shape).numel() for file in files for shape in shapes_of(file).values())


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
    copy_tensors(own, fitting_tensors(folder, COMPONENT_WEIGHTS, own))


@torch.inference_mode()
def _outputs(model: SpeechLLM) -> list[Tensor]:
    """What the recogniser makes of a second of noise: logits of a few labels, and of the CTC head if it has one."""
    noise = 0.1 * torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    acoustic = model.acoustic
    encoded = acoustic.encode(noise, torch.tensor([SAMPLE_RATE]))
    logits, _ = model.label_logits(encoded, [[0, 1, 2, 3]], [[3, 2, 1]])
    return [logits, *(acoustic.log_probs(encoded)[:1] if acoustic.config.ctc_layers else ())]
