"""Model folders: safe loading of what `save_pretrained` wrote, and saving of a whole recogniser.

A folder holds `config.json`, `model.safetensors` (one file or shards), tokenizer files, `processor_config.json` and
`generation_config.json`. Nothing but safetensors and JSON is read; pickles are refused with the reason.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from kikitori.errors import ModelError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.processor import SpeechProcessor
from kikitori.model.safety import check_code, check_weights, one_line_errors, quiet_transformers, read_json
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.units import TokenizerUnits, load_units

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
        directory.mkdir(parents=True, exist_ok=True)  # transformers is silent where a file is in the way
        with quiet_transformers():
            model.save_pretrained(directory)
            SpeechProcessor(units.tokenizer).save_pretrained(directory)
            units.save(directory)
            GenerationConfig(eos_token_id=units.eos_id, **asdict(trained_on)).save_pretrained(directory)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot be written ({reason})", where=directory, remedy="check the path and the free space"
        ) from None


def load_model(path_or_id: str | Path) -> LoadedModel:
    """Loads a recogniser in float32, in evaluation mode.

    Args:
        path_or_id: A folder, or the id of a model on the Hugging Face hub.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the folder holds something else.
    """
    config = read_json(path_or_id, "config.json")
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_CLASSES:
        raise ModelError(
            f"model type '{model_type}' is no recogniser",
            where=path_or_id,
            remedy="give a folder that kikitori train wrote (RUN/model)",
        )
    model = _load_weights(MODEL_CLASSES[model_type], path_or_id, config, may_hold_more=False)
    units = load_units(path_or_id)
    _check_units(path_or_id, model, units)
    return LoadedModel(model.eval(), units, _read_trained_on(path_or_id))


def load_llm(path_or_id: str | Path) -> PreTrainedModel:
    """Loads a decoder-only language model in float32.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the model is not decoder-only.
    """
    config = read_json(path_or_id, "config.json")
    # Public checkpoints often carry buffers of old releases beside their weights.
    llm: PreTrainedModel = _load_weights(AutoModelForCausalLM, path_or_id, config, may_hold_more=True)
    return llm


def is_recogniser(path_or_id: str | Path) -> bool:
    """True if this is a recogniser of ours and not, say, a bare encoder.

    Raises:
        ModelError: There is no readable config.json.
    """
    return str(read_json(path_or_id, "config.json").get("model_type")) in MODEL_CLASSES


def _load_weights(model_class: Any, path_or_id: str | Path, config: dict[str, Any], *, may_hold_more: bool) -> Any:
    """Weights from safetensors in float32, all of them there and finite."""
    check_code(path_or_id, config)
    check_weights(path_or_id)
    # The Auto classes would otherwise ask on standard input; ours know no remote code.
    auto = {"trust_remote_code": False} if model_class is AutoModelForCausalLM else {}
    with one_line_errors(path_or_id), quiet_transformers():
        model, info = model_class.from_pretrained(
            str(path_or_id), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **auto
        )
    wrong = sorted(info["missing_keys"]) or ([] if may_hold_more else sorted(info["unexpected_keys"]))
    if wrong:
        raise ModelError(
            f"the weights do not fit config.json at {wrong[0]}", where=path_or_id, remedy="copy the folder again"
        )
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise ModelError(
                f"{name} holds values that are not finite",
                where=path_or_id,
                remedy="take a checkpoint from before training diverged",
            )
    return model


def _read_trained_on(path_or_id: str | Path) -> TrainedOn:
    values = read_json(path_or_id, "generation_config.json")
    language = values.get("language")
    for name in ("labels_per_second", "max_seconds"):
        value = values.get(name)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ModelError(
                f"generation_config.json has no positive number as {name}",
                where=path_or_id,
                remedy="copy the folder again",
            )
    return TrainedOn(
        float(values["labels_per_second"]), float(values["max_seconds"]), None if language is None else str(language)
    )


def _check_units(path_or_id: str | Path, model: AcousticModel | SpeechLLM, units: TokenizerUnits) -> None:
    acoustic = model.acoustic if isinstance(model, SpeechLLM) else model
    sizes = {acoustic.config.num_units} if acoustic.config.ctc_layers else set()
    if isinstance(model, SpeechLLM):
        # An output matrix may be padded to a round size.
        sizes.add(min(units.size, int(model.llm.get_input_embeddings().num_embeddings)))
    if sizes - {units.size}:
        raise ModelError(
            f"the tokenizer has {units.size} labels, the model {min(sizes - {units.size})}",
            where=path_or_id,
            remedy="copy the tokenizer files that belong to the model",
        )
