"""The networks of Whisper in the layouts of transformers and CTranslate2, read as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from kikitori.errors import ModelError
from kikitori.model.published.ctranslate2 import (
    generation_values,
    is_ctranslate2,
    read_arrays,
    whisper_config,
    whisper_tensors,
)
from kikitori.model.safety.config import read_json
from kikitori.model.safety.load import check_loaded, encoder_alone, read_weights
from kikitori.text.units import TokenizerUnits, load_units

MODEL_TYPE = "whisper"


def is_whisper(path_or_id: str | Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder, or a model on the hub, is a Whisper, by its `config.json`."""
    return config.get("model_type") == MODEL_TYPE or is_ctranslate2(Path(path_or_id))


def load_whisper(path_or_id: str | Path, config: dict[str, Any], units: TokenizerUnits | None = None) -> Any:
    """The `WhisperForConditionalGeneration` of a folder or the hub; these often carry buffers of old releases.

    Args:
        path_or_id: Where it lies.
        config: Its `config.json`.
        units: Those that lie beside it, where they are loaded already.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or there is an encoder alone.
    """
    if is_ctranslate2(Path(path_or_id)):
        return _load_ctranslate2(Path(path_or_id), units or load_units(path_or_id))
    whisper, info = read_weights(WhisperForConditionalGeneration, path_or_id, config)
    if "model.decoder.embed_positions.weight" in info["missing_keys"]:
        raise encoder_alone(path_or_id, MODEL_TYPE)
    check_loaded(path_or_id, whisper, sorted(info["missing_keys"]))
    return whisper


def whisper_values(path_or_id: str | Path, whisper: Any, units: TokenizerUnits) -> dict[str, Any]:
    """The entries of a Whisper's `generation_config.json`; those of CTranslate2 have their own file for them.

    Raises:
        ModelError: The file is missing or damaged.
    """
    if is_ctranslate2(Path(path_or_id)):
        return generation_values(Path(path_or_id), whisper.config, units)
    return read_json(path_or_id, "generation_config.json")


def _load_ctranslate2(folder: Path, units: TokenizerUnits) -> Any:
    arrays = read_arrays(folder)
    try:
        config, tensors = whisper_config(arrays, units), whisper_tensors(arrays)
        with torch.device("meta"):  # drawing weights that are replaced at once would take as long as reading these
            whisper = WhisperForConditionalGeneration(config)
        info = whisper.load_state_dict(tensors, strict=False, assign=True)
        whisper.tie_weights()
    except KeyError as error:
        raise ModelError(f"model.bin has no {error.args[0]}", where=folder, remedy="copy the folder again") from None
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
        raise ModelError(f"model.bin is no Whisper ({reason})", where=folder, remedy="copy the folder again") from None
    check_loaded(folder, whisper, sorted({*info.missing_keys, *info.unexpected_keys}))
    return whisper
