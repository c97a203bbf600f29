"""Model folders: safe loading of what `save_pretrained` wrote, and saving of a whole recogniser.

A folder holds `config.json`, `model.safetensors` (one file or shards), tokenizer files, `processor_config.json` and
`generation_config.json`. Nothing but safetensors and JSON is read; pickles are refused with the reason.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from kikitori.errors import ModelError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.processor import SpeechProcessor
from kikitori.model.quiet import quiet_transformers
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.units import TokenizerUnits, load_units

MAX_JSON_BYTES = 64 * 2**20  # tokenizer.json of a vocabulary of 256k has about 20 MB
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".nemo")
MODEL_CLASSES: dict[str, type[AcousticModel] | type[SpeechLLM]] = {
    AcousticModelConfig.model_type: AcousticModel,
    SpeechLLMConfig.model_type: SpeechLLM,
}


@dataclass(frozen=True)
class TrainedOn:
    """What a recogniser must remember of its training data; kept in `generation_config.json`.

    Attributes:
        labels_per_second: The highest rate of labels seen, from which the length limit follows.
        max_seconds: The longest utterance seen; longer ones are uncharted.
        language: Language of the transcripts.
    """

    labels_per_second: float
    max_seconds: float
    language: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A recogniser in memory: network, label units, and what its training data were like."""

    model: AcousticModel | SpeechLLM
    units: TokenizerUnits
    trained_on: TrainedOn


def save_model(directory: Path, model: PreTrainedModel, units: TokenizerUnits, trained_on: TrainedOn) -> None:
    """Writes a recogniser folder.

    Raises:
        ModelError: The folder cannot be written.
    """
    try:
        with quiet_transformers():
            model.save_pretrained(directory)
            SpeechProcessor(units.tokenizer).save_pretrained(directory)
            units.save(directory)
            GenerationConfig(eos_token_id=units.eos_id, **asdict(trained_on)).save_pretrained(directory)
    except OSError as error:
        raise ModelError(f"cannot be written ({error.strerror or error})", where=directory) from None


def load_model(path_or_id: str | Path) -> LoadedModel:
    """Loads a recogniser in float32, in evaluation mode.

    Args:
        path_or_id: A folder, or the id of a model on the Hugging Face hub.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the folder holds something else.
    """
    config = _read_json(path_or_id, "config.json")
    model_type = config.get("model_type")
    if model_type not in MODEL_CLASSES:
        raise ModelError(
            f"model type '{model_type}' is no recogniser",
            where=path_or_id,
            remedy="give a folder that kikitori train wrote (RUN/model)",
        )
    _check_weights(path_or_id)
    with _one_line_errors(path_or_id), quiet_transformers():
        model_class: Any = MODEL_CLASSES[model_type]
        model, info = model_class.from_pretrained(
            str(path_or_id), use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    wrong = sorted(info["missing_keys"]) or sorted(info["unexpected_keys"])
    if wrong:
        raise ModelError(
            f"the weights do not fit config.json at {wrong[0]}", where=path_or_id, remedy="copy the folder again"
        )
    units = load_units(path_or_id)
    return LoadedModel(model.eval(), units, _read_trained_on(path_or_id))


def load_llm(path_or_id: str | Path) -> PreTrainedModel:
    """Loads a decoder-only language model in float32.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the model is not decoder-only.
    """
    _read_json(path_or_id, "config.json")
    _check_weights(path_or_id)
    with _one_line_errors(path_or_id), quiet_transformers():
        llm: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(path_or_id), use_safetensors=True, dtype=torch.float32
        )
    return llm


def is_recogniser(path_or_id: str | Path) -> bool:
    """True if this is a recogniser of ours and not, say, a bare encoder.

    Raises:
        ModelError: There is no readable config.json.
    """
    return _read_json(path_or_id, "config.json").get("model_type") in MODEL_CLASSES


@contextmanager
def _one_line_errors(path_or_id: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot be loaded ({reason})", where=path_or_id, remedy="copy the folder again") from None


def _read_trained_on(path_or_id: str | Path) -> TrainedOn:
    values = _read_json(path_or_id, "generation_config.json")
    try:
        return TrainedOn(
            labels_per_second=float(values["labels_per_second"]),
            max_seconds=float(values["max_seconds"]),
            language=values.get("language"),
        )
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            "generation_config.json lacks labels_per_second or max_seconds",
            where=path_or_id,
            remedy="copy the folder again",
        ) from None


def _check_weights(path_or_id: str | Path) -> None:
    folder = Path(path_or_id)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            where=path_or_id,
            remedy="save the model again with save_pretrained, which writes safetensors",
        )
    raise ModelError("model.safetensors is missing", where=path_or_id, remedy="copy the folder again")


def _read_json(path_or_id: str | Path, name: str) -> dict[str, Any]:
    folder = Path(path_or_id)
    if folder.is_dir():
        file: Path = folder / name
    elif folder.is_absolute() or str(path_or_id).startswith((".", "~")) or str(path_or_id).count("/") != 1:
        raise ModelError("no such model folder", where=path_or_id, remedy="give a folder, or a hub id like owner/name")
    else:
        try:
            file = Path(str(cached_file(str(path_or_id), name)))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{name} cannot be fetched ({reason})", where=path_or_id) from None
    if not file.is_file():
        raise ModelError(f"{name} is missing", where=path_or_id, remedy="copy the folder again")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{name} is larger than {MAX_JSON_BYTES >> 20} MB", where=path_or_id)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not JSON ({error})", where=path_or_id, remedy="copy the folder again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{name} is not a JSON object", where=path_or_id)
    return values
