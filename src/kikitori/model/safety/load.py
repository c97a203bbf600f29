"""Weights read by transformers: checked before, and all there and finite after."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kikitori.errors import ModelError
from kikitori.model.safety.config import check_config, one_line_errors, quiet_transformers
from kikitori.model.safety.weights import check_weights, no_larger_than
from kikitori.model.weights import check_finite


def load_weights(model_class: Any, path_or_id: str | Path, config: dict[str, Any], *, may_hold_more: bool) -> Any:
    """Weights from safetensors in float32, all of them there and finite."""
    model, info = read_weights(model_class, path_or_id, config)
    wrong = sorted(info["missing_keys"]) or ([] if may_hold_more else sorted(info["unexpected_keys"]))
    check_loaded(path_or_id, model, wrong)
    return model


def read_weights(model_class: Any, path_or_id: str | Path, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Weights from safetensors in float32, and what transformers says of them."""
    from transformers import AutoModelForCausalLM

    check_config(path_or_id, config)
    size = check_weights(path_or_id)
    # The Auto classes would otherwise ask on standard input; ours know no remote code.
    auto = {"trust_remote_code": False} if model_class is AutoModelForCausalLM else {}
    with one_line_errors(path_or_id), quiet_transformers(), no_larger_than(size, path_or_id):
        model, info = model_class.from_pretrained(
            str(path_or_id), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **auto
        )
    return model, info


def check_loaded(path_or_id: str | Path, model: nn.Module, wrong: list[str]) -> None:
    """Refuses weights that are missing or left over, by their names, and numbers that are not finite."""
    if wrong:
        raise ModelError(
            f"the weights do not fit config.json at {wrong[0]}", where=path_or_id, remedy="copy the folder again"
        )
    for name, weight in model.state_dict().items():
        check_finite(path_or_id, name, weight)


def encoder_alone(path_or_id: str | Path, model_type: str) -> ModelError:
    """An encoder where a recogniser is asked for."""
    return ModelError(
        f"a speech encoder alone ('{model_type}') writes no text",
        where=path_or_id,
        remedy="train a recogniser that starts from it (encoder.init in a recipe)",
    )


def other_units(path_or_id: str | Path, units: int, labels: int) -> ModelError:
    """A tokenizer that does not belong to the model."""
    return ModelError(
        f"the tokenizer has {units} labels, the model {labels}",
        where=path_or_id,
        remedy="copy the tokenizer files that belong to the model",
    )
