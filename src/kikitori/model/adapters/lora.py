"""LoRA adapters on the LLM and on the speech encoder, through PEFT (Hu et al. 2021), and whether they do anything.

An adapter may be silently dead: attached to layers whose code reads the weights and never calls the layer (WavLM's
attention), or loaded as zeros. The first is refused when it is attached (`dead_layers`), the second `is_live` tells.
"""

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kikitori.errors import ModelError
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.model.decoder.vocabulary import embedding_layers
from kikitori.model.encoder import SAMPLE_RATE, SpeechEncoder

ENCODER_TARGETS = {"wavlm": ("intermediate_dense", "output_dense")}  # its attention never calls the linear layers
ATTENTION = ("q_proj", "v_proj")
UPDATE = ".lora_B."
"""In the names of the matrices that begin at zero."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Lora:
    """Low-rank adaptation (Hu et al. 2021); the scale is alpha / rank.

    Attributes:
        targets: Names of the linear layers; None takes a usual choice for the architecture: of an LLM PEFT's, of an
            encoder the queries and values of the attention (WavLM: the feed-forward layers).
        rank_stabilised: Its scale is alpha / √rank instead, which high ranks need (Kalajdzievski 2023).
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    targets: list[str] | None = None
    rank_stabilised: bool = False


def attach_lora(llm: PreTrainedModel, lora: Lora) -> PreTrainedModel:
    """Freezes the LLM, any decoder-only model of transformers, and adds trainable updates to its linear layers.

    Raises:
        ModelError: PEFT knows no layers for this architecture, a name is none of its layers', or what such a layer
            learnt would not reach the logits.
    """
    from peft import get_peft_model

    config = _lora_config(llm, "llm.lora", lora)
    config.task_type = "CAUSAL_LM"
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # PEFT reads old names of transformers
            adapted: Any = get_peft_model(llm, config)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"LoRA finds no layers ({reason}; there are {_names(llm)})", where="llm.lora", remedy="set llm.lora.targets"
        ) from None
    _refuse_dead_layers(adapted, "llm.lora")
    return cast(PreTrainedModel, adapted)


def attach_encoder_lora(encoder: SpeechEncoder, lora: Lora) -> None:
    """Freezes the encoder, of any family, and puts trainable updates into its linear layers, in place.

    Raises:
        ModelError: A name is none of its layers', or what such a layer learnt would not reach the frames.
    """
    from peft import inject_adapter_in_model

    if lora.targets is None:
        lora = replace(lora, targets=list(ENCODER_TARGETS.get(encoder.config.model_type, ATTENTION)))
    config = _lora_config(encoder.model, "encoder.lora", lora)
    inject_adapter_in_model(config, encoder.model)
    encoder.train(encoder.training)
    _refuse_dead_layers(encoder, "encoder.lora")


def is_adapted(module: nn.Module) -> bool:
    """True if LoRA is attached."""
    return any(UPDATE in name for name, _ in module.named_parameters())


def dead_layers(module: PreTrainedModel | SpeechEncoder) -> list[str]:
    """Adapted layers whose update cannot change what the LLM or the encoder puts out, whatever it learns."""
    updates = _updates(module)
    with _evaluating(module), torch.inference_mode(mode=False), torch.enable_grad():
        learning = [update.requires_grad for update in updates.values()]
        for update in updates.values():
            update.requires_grad_(True)
        result = _probe(module)
        weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(0)).to(result)
        total = (result * weights).sum()
        gradients: Sequence[Tensor | None] = [None] * len(updates)
        if total.requires_grad:
            gradients = torch.autograd.grad(total, list(updates.values()), allow_unused=True)
        for update, learns in zip(updates.values(), learning, strict=True):
            update.requires_grad_(learns)
    return [
        name.partition(UPDATE)[0]
        for name, gradient in zip(updates, gradients, strict=True)
        if gradient is None or not bool(gradient.any())
    ]


def is_live(module: PreTrainedModel | SpeechEncoder) -> bool:
    """True if the adapters, as they are now, change what the LLM or the encoder puts out.

    Freshly attached ones do not; trained ones must, and so must loaded ones, or else they did not come through.
    """
    updates = _updates(module)
    with _evaluating(module), torch.no_grad():
        adapted = _probe(module)
        kept = [update.clone() for update in updates.values()]
        for update in updates.values():
            update.zero_()
        try:
            plain = _probe(module)
        finally:
            for update, values in zip(updates.values(), kept, strict=True):
                update.copy_(values)
    return not torch.equal(adapted, plain)


def idle(parts: Mapping[str, PreTrainedModel | SpeechEncoder]) -> list[str]:
    """A line for each part whose adapters have begun to learn and yet change nothing."""
    return [
        f"the adapters of the {name} do nothing yet: it puts out what it would without them"
        for name, part in parts.items()
        if any(update.requires_grad for update in _updates(part).values()) and not is_live(part)
    ]


def merged_copy(llm: PreTrainedModel) -> PreTrainedModel:
    """The LLM with its adapters added into the weights, as a plain transformers model; `llm` itself is left alone."""
    if not is_adapted(llm):
        return llm
    merged: PreTrainedModel = copy.deepcopy(llm).merge_and_unload()  # type: ignore[operator]
    return merged


def merged_encoder(encoder: SpeechEncoder) -> SpeechEncoder:
    """The encoder with its adapters added into the weights; `encoder` itself is left alone."""
    if not is_adapted(encoder):
        return encoder
    merged = copy.deepcopy(encoder)
    for name in {name.partition(UPDATE)[0] for name in _updates(merged)}:
        layer: Any = merged.get_submodule(name)
        layer.merge()
        merged.set_submodule(name, layer.get_base_layer())
    return merged


def save_lora(directory: Path, llm: PreTrainedModel) -> None:
    """Writes the LLM's adapters in PEFT's form, with the embedding and output matrices if these are new.

    Where the LLM was loaded from, which PEFT adds to its settings and to a card, is left out.
    """
    learnt = any(parameter.requires_grad for layer in embedding_layers(llm) for parameter in layer.parameters())
    llm.save_pretrained(directory, save_embedding_layers=learnt)
    file = directory / "adapter_config.json"
    settings = json.loads(file.read_bytes()) | {"base_model_name_or_path": None}
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (directory / "README.md").unlink(missing_ok=True)


def _lora_config(model: nn.Module, where: str, lora: Lora) -> Any:
    """PEFT's configuration, with every target a name that the model has."""
    from peft import LoraConfig

    for target in lora.targets or ():
        if not any(f".{name}".endswith(f".{target}") for name in _layers(model)):
            raise ModelError(
                f"LoRA finds no layer '{target}' (there are {_names(model)})",
                where=f"{where}.targets",
                remedy=f"set {where}.targets to some of them",
            )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT computes with floats too
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        use_rslora=lora.rank_stabilised,
    )


def _layers(model: nn.Module) -> list[str]:
    """Paths of the layers that can carry updates."""
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding | Conv1D)]


def _names(model: nn.Module) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in _layers(model)}))


def _refuse_dead_layers(module: PreTrainedModel | SpeechEncoder, where: str) -> None:
    dead = dead_layers(module)
    if dead:
        names = ", ".join(sorted({name.rpartition(".")[2] for name in dead}))
        raise ModelError(
            f"LoRA would learn nothing in {names}: the model reads these weights without calling the layers",
            where=f"{where}.targets",
            remedy=f"set {where}.targets to other layers",
        )


def _updates(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if UPDATE in name}


def _probe(module: PreTrainedModel | SpeechEncoder) -> Tensor:
    """What the LLM says after a few labels, or the encoder of a second of noise."""
    device = next(module.parameters()).device
    if isinstance(module, SpeechEncoder):
        noise = torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
        return module.encode(*module.features(noise.to(device), torch.tensor([SAMPLE_RATE], device=device))).frames
    labels = torch.arange(8, device=device)[None] % module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    return project(module, forward(module, embed(module, labels), torch.tensor([8], device=device)))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
