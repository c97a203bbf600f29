"""LoRA adapters on the LLM, through PEFT (Hu et al. 2021)."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, cast

from transformers import PreTrainedModel

from kikitori.errors import ModelError


def attach_lora(
    llm: PreTrainedModel, *, rank: int, alpha: float, dropout: float, targets: Sequence[str] | None
) -> PreTrainedModel:
    """Freezes the LLM and adds trainable low-rank updates to its linear layers.

    Args:
        llm: Any decoder-only model of transformers.
        rank: Rank of the updates.
        alpha: Their scale is alpha / rank.
        dropout: Dropout before the update.
        targets: Names of the layers; None takes PEFT's choice for the architecture.

    Raises:
        ModelError: PEFT knows no layers for this architecture, or none has these names.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT computes with floats too
        lora_dropout=dropout,
        target_modules=None if targets is None else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # PEFT reads old names of transformers
            adapted: Any = get_peft_model(llm, config)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"LoRA finds no layers ({reason})", where="llm.lora", remedy="set llm.lora.targets") from None
    return cast(PreTrainedModel, adapted)


def is_adapted(llm: PreTrainedModel) -> bool:
    """True if LoRA is attached."""
    return hasattr(llm, "peft_config")


def merged_copy(llm: PreTrainedModel) -> PreTrainedModel:
    """The LLM with its adapters added into the weights, as a plain transformers model; `llm` itself is left alone."""
    if not is_adapted(llm):
        return llm
    merged: PreTrainedModel = copy.deepcopy(llm).merge_and_unload()  # type: ignore[operator]
    return merged
