"""Trained parts of a speech LLM: a small folder that names Whisper and LLM, and holds what training has added.

`model.safetensors` holds bridge, interface, CTC heads and the encoder layers that are not Whisper's any more, and
`adapter/` the LLM's LoRA in PEFT's form; both in float16. `config.json` names the bases by hub id and by a digest of
their tensors (`kikitori.model.published.part`).
"""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.errors import KikitoriWarning
from kikitori.io.files import write_text
from kikitori.io.model_folder import BASE
from kikitori.model.adapters.lora import merged_copy
from kikitori.model.adapters.lora_folder import LORA_CONFIG, LORA_WEIGHTS, load_lora
from kikitori.model.published.part import (
    base_encoder,
    check_digest,
    find_base,
    misfit,
    own_tensors,
    part_tensors,
    save_tensors,
    shared_layers,
    values_digest,
    whole_acoustic,
)
from kikitori.model.published.whisper import load_whisper
from kikitori.model.safety.config import read_json
from kikitori.model.safety.fetch import fetched
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig

ENCODER, LLM = "encoder", "llm"
"""Keys of the bases."""
ACOUSTIC, TRAINED = "acoustic.", ("bridge.", "interface.")
ADAPTER = "adapter"
"""Folder within the part: the LoRA."""

LoadLLM = Callable[[str | Path], PreTrainedModel]


def save_speech_llm_part(
    directory: Path, model: SpeechLLM, adapter: Path, encoder: str, llm: str, load_llm: LoadLLM
) -> None:
    """Writes `config.json`, `model.safetensors` and `adapter/` of a part.

    Args:
        directory: Folder to write into.
        model: The speech LLM, adapters merged.
        adapter: Folder of the LLM's LoRA in PEFT's form.
        encoder: Hub id of the Whisper.
        llm: Hub id of the LLM.
        load_llm: What loads an LLM from its folder or hub id.

    Raises:
        ModelError: A base cannot be loaded, or the encoder is not that of the named one.
        OSError: The folder cannot be written.
    """
    whisper = _whisper(encoder)
    start = base_encoder(whisper, model.acoustic, encoder, directory)
    acoustic = own_tensors(model.acoustic, start)
    shared_layers(acoustic, start.num_layers)
    tensors = {ACOUSTIC + name: tensor for name, tensor in acoustic.items()}
    tensors |= trained_tensors(model)
    save_tensors(directory, tensors)
    bases = {
        ENCODER: {"name": encoder, "digest": values_digest(whisper)},
        LLM: {"name": llm, "digest": values_digest(load_llm(find_base(llm)))},
    }
    values = {**copy.deepcopy(model.config).to_dict(), BASE: bases}
    write_text(directory / "config.json", json.dumps(values, indent=2, sort_keys=True, default=str) + "\n")
    (directory / ADAPTER).mkdir()
    write_text(directory / ADAPTER / LORA_CONFIG, (adapter / LORA_CONFIG).read_text(encoding="utf-8"))
    updates = {name: tensor.to(torch.float16) for name, tensor in load_file(adapter / LORA_WEIGHTS).items()}
    save_file(updates, directory / ADAPTER / LORA_WEIGHTS, metadata={"format": "pt"})


def load_speech_llm_part(folder: str | Path, values: Mapping[str, Any], load_llm: LoadLLM) -> SpeechLLM:
    """The speech LLM of a part and its bases, adapters merged.

    An LLM with other weights than those that the adapters were trained on is taken, with a warning: published weights
    and those made of a quantised file differ in each number, and work alike.

    Args:
        folder: The part's folder.
        values: Its `config.json`.
        load_llm: What loads an LLM from its folder or hub id.

    Raises:
        ModelError: A base is not found, Whisper is another one, or tensors are missing, damaged or unknown.
    """
    bases = values[BASE]
    whisper = _whisper(str(bases[ENCODER].get("name")), folder)
    check_digest(folder, bases[ENCODER], whisper)
    name = str(bases[LLM].get("name"))
    llm = load_llm(find_base(name, folder))
    if values_digest(llm) != bases[LLM].get("digest"):
        warnings.warn(f"{folder}: {name} has other weights here than in training", KikitoriWarning, stacklevel=2)
    tensors = part_tensors(folder)
    config = SpeechLLMConfig(**{key: value for key, value in values.items() if key not in ("model_type", BASE)})
    own = {name.removeprefix(ACOUSTIC): each for name, each in tensors.items() if name.startswith(ACOUSTIC)}
    acoustic = whole_acoustic(folder, config.acoustic_config, whisper, own)
    try:
        model = SpeechLLM(config, acoustic=acoustic, llm=llm)
    except RuntimeError as error:
        raise misfit(folder, "the LLM's sizes") from error
    fill_trained(folder, model, {name: each for name, each in tensors.items() if not name.startswith(ACOUSTIC)})
    load_lora(model, Path(folder) / ADAPTER)
    model.llm = merged_copy(model.llm)
    return model


def _whisper(name: str, part: str | Path | None = None) -> Any:
    base = fetched(find_base(name, part))
    return load_whisper(base, read_json(base, "config.json"))


def trained_tensors(model: SpeechLLM) -> dict[str, Tensor]:
    """The tensors of bridge and interface."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRAINED)}


def fill_trained(folder: str | Path, model: SpeechLLM, tensors: Mapping[str, Tensor]) -> None:
    """Gives bridge and interface their tensors.

    Raises:
        ModelError: One is missing, unknown or of another shape.
    """
    wanted = trained_tensors(model)
    for name in sorted({*wanted} ^ {*tensors}):
        raise misfit(folder, name)
    for name, tensor in tensors.items():
        if wanted[name].shape != tensor.shape:
            raise misfit(folder, name)
        wanted[name].copy_(tensor)
