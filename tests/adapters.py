"""Adapters of tiny recognisers, as after some training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kikitori.model.adapters.folder import Component, save_adapter
from kikitori.model.adapters.info import AdapterInfo, fingerprint
from kikitori.model.adapters.lora import Lora
from kikitori.model.folder import load_model
from kikitori.model.speech_llm import SpeechLLM
from kikitori.train.recipe.adaptation import Adapt
from kikitori.train.tasks.adaptation import set_components


def make_adapter(
    base: Path, folder: Path, components: Sequence[Component] = ("llm",), *, learnt: float = 0.3, **lora: Any
) -> SpeechLLM:
    """Writes an adapter of random changes of size `learnt`; returns the adapted model."""
    model = load_model(base).model
    assert isinstance(model, SpeechLLM)
    info = AdapterInfo(
        format=1,
        base_name="tiny",
        base=fingerprint(base, model),
        components=list(components),
        labels_per_second=12.0,
        max_seconds=3.5,
    )
    set_components(
        model, Adapt(model=str(base), components=list(components)), Lora(**{"rank": 3, "alpha": 6.0, **lora}), [2]
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += learnt * torch.randn(parameter.shape, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(folder, model, info)
    return model.eval()
