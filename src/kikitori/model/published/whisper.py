"""The networks of Whisper in the layouts of transformers and CTranslate2, read as they are."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kikitori.errors import KikitoriWarning, ModelError
from kikitori.io.model_folder import CONFIG
from kikitori.model.published.ctranslate2 import (
    generation_values,
    is_ctranslate2,
    read_arrays,
    whisper_config,
    whisper_tensors,
)
from kikitori.model.published.generation import GENERATION, derived_values
from kikitori.model.safety.config import check_config, one_line_errors, read_json
from kikitori.model.safety.load import check_loaded, encoder_alone, read_weights
from kikitori.model.safety.weights import check_weights, no_larger_than
from kikitori.model.weights import SAFETENSORS, check_numbers, find_weights, map_safetensors
from kikitori.model.whisper.config import WhisperConfig
from kikitori.model.whisper.network import Whisper, whisper_of
from kikitori.text.units import TokenizerUnits, load_units

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

MODEL_TYPE = "whisper"
DECODER_POSITIONS = "model.decoder.embed_positions.weight"


def is_whisper(path_or_id: str | Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder, or a model on the hub, is a Whisper, by its `config.json`."""
    return config.get("model_type") == MODEL_TYPE or is_ctranslate2(Path(path_or_id))


def load_whisper(path_or_id: str | Path, config: dict[str, Any], units: TokenizerUnits | None = None) -> Whisper:
    """The network of a folder or the hub; these often carry buffers of old releases.

    Args:
        path_or_id: Where it lies.
        config: Its `config.json`.
        units: Those that lie beside it, where they are loaded already.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or there is an encoder alone.
    """
    if is_ctranslate2(Path(path_or_id)):
        return _load_ctranslate2(Path(path_or_id), units or load_units(path_or_id))
    if not Path(path_or_id).is_dir():
        return _load_from_hub(str(path_or_id), config)
    check_config(path_or_id, config)
    size = check_weights(path_or_id)
    tensors = {
        _whole_name(name): each for name, each in map_safetensors(find_weights(Path(path_or_id), SAFETENSORS)).items()
    }
    for name, tensor in tensors.items():
        check_numbers(path_or_id, name, tensor)
    if DECODER_POSITIONS not in tensors:
        raise encoder_alone(path_or_id, MODEL_TYPE)
    copied = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}  # files may change
    with one_line_errors(path_or_id), no_larger_than(size, path_or_id):
        whisper, missing = whisper_of(WhisperConfig.of(config), copied)
    check_loaded(path_or_id, whisper, sorted(missing))
    return whisper


def as_transformers(whisper: Whisper) -> "WhisperForConditionalGeneration":
    """The same network in the form of transformers."""
    from transformers import WhisperConfig as Config
    from transformers import WhisperForConditionalGeneration

    network = WhisperForConditionalGeneration(Config(**whisper.config.entries()))
    network.load_state_dict(whisper.state_dict())
    network.eval()  # type: ignore[no-untyped-call]
    return network


def whisper_values(path_or_id: str | Path, units: TokenizerUnits) -> dict[str, Any]:
    """The entries of a Whisper's `generation_config.json`; those of CTranslate2 have their own file for them.

    Where a folder has none they are derived, with a `KikitoriWarning`.

    Raises:
        ModelError: The file is damaged, or missing and nothing can be derived.
    """
    folder = Path(path_or_id)
    if is_ctranslate2(folder):
        return generation_values(folder, units)
    if folder.is_dir() and not (folder / GENERATION).exists():
        values = derived_values(path_or_id, read_json(path_or_id, CONFIG), units)
        made = "start, languages and what is never written come from config.json and the tokenizer"
        warnings.warn(f"{path_or_id}: no {GENERATION}; {made}", KikitoriWarning, stacklevel=2)
        return values
    return read_json(path_or_id, GENERATION)


def _load_ctranslate2(folder: Path, units: TokenizerUnits) -> Whisper:
    arrays = read_arrays(folder)
    try:
        whisper, missing = whisper_of(whisper_config(arrays, units), whisper_tensors(arrays))
    except KeyError as error:
        raise ModelError(f"model.bin has no {error.args[0]}", where=folder, remedy="copy the folder again") from None
    except (RuntimeError, IndexError, ValueError, ModelError) as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise ModelError(f"model.bin is no Whisper ({reason})", where=folder, remedy="copy the folder again") from None
    check_loaded(folder, whisper, sorted(missing))
    return whisper


def _load_from_hub(name: str, config: dict[str, Any]) -> Whisper:
    """By transformers, which finds the files of a hub id."""
    from transformers import WhisperForConditionalGeneration

    network, info = read_weights(WhisperForConditionalGeneration, name, config)
    if DECODER_POSITIONS in info["missing_keys"]:
        raise encoder_alone(name, MODEL_TYPE)
    check_loaded(name, network, sorted(info["missing_keys"]))
    whisper, _ = whisper_of(WhisperConfig.of(config), network.state_dict())
    return whisper


def _whole_name(name: str) -> str:
    """The name of a tensor in the whole recogniser; some folders hold what is below its output matrix."""
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name
