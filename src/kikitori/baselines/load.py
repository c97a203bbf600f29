"""From `hf:ID_OR_FOLDER` or `ct2:FOLDER` to a recogniser that other software runs."""

import torch

from kikitori.baselines.base import Baseline
from kikitori.baselines.by_transformers import load_transformers
from kikitori.errors import ConfigError, ModelError
from kikitori.loading import BASELINES
from kikitori.model.device import Device, torch_device
from kikitori.model.published.part import find_base
from kikitori.model.safety.config import is_hub_id
from kikitori.recognizer import Precision

HF, CT2 = BASELINES


def load_baseline(
    model: str, *, device: Device = "auto", dtype: Precision = "float32", language: str | None = None
) -> Baseline:
    """A recogniser that transformers (`hf:`) or faster-whisper (`ct2:`) runs.

    A hub id is looked for in the folder that `KIKITORI_PARTS` names first, by its last part.

    Raises:
        ConfigError: A package or an option is not to be had.
        ModelError: There is no such model, or none that the software takes.
    """
    if model in BASELINES:
        raise ModelError(f"{model} names no model", where="--model", remedy=f"write {HF}ID_OR_FOLDER or {CT2}FOLDER")
    if model.startswith(CT2):
        from kikitori.baselines.by_faster_whisper import load_faster_whisper

        return load_faster_whisper(model.removeprefix(CT2), device=device, dtype=dtype, language=language)
    if dtype == "int8":
        raise ConfigError("transformers has no int8 here", where="dtype", remedy=f"use {CT2}FOLDER or float32")
    name, numbers = model.removeprefix(HF), getattr(torch, dtype)
    place = str(find_base(name)) if is_hub_id(name) else name
    return load_transformers(place, device=torch_device(device), dtype=numbers, language=language)
