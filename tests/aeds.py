"""Tiny encoder-decoders of transformers beside Whisper, random but the same on every call, and their folders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    FeatureExtractionMixin,
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)

from kikitori.model.safety.config import quiet_transformers
from kikitori.text.units import TokenizerUnits
from tests.tiny import DIM, shake, tiny_bpe

EOS = 2


@dataclass(frozen=True)
class TinyAed:
    """An encoder-decoder with what lies beside it.

    Attributes:
        network: The whole of it, as transformers has it.
        units: Its tokenizer.
        features: Its feature extractor.
    """

    network: PreTrainedModel
    units: TokenizerUnits
    features: FeatureExtractionMixin

    def inputs(self, waveform: NDArray[np.float32]) -> dict[str, torch.Tensor]:
        """What the network reads of one waveform."""
        found: Any = self.features(waveform, sampling_rate=16000, return_tensors="pt")  # type: ignore[operator]
        return {name: found[name] for name in ("input_values", "input_features", "attention_mask") if name in found}

    def generated(self, waveform: NDArray[np.float32], prompt: list[int]) -> tuple[int, ...]:
        """Labels that transformers writes behind a prompt, greedily, without the end."""
        network: Any = self.network
        given = torch.tensor([prompt])
        (found,) = network.generate(
            **self.inputs(waveform), decoder_input_ids=given, num_beams=1, do_sample=False
        ).tolist()
        return tuple(label for label in found[len(prompt) :] if label != EOS)

    def save(self, folder: Path) -> None:
        """Writes a folder as transformers has it."""
        with quiet_transformers():
            self.network.save_pretrained(folder)
        self.units.save(folder)
        self.features.save_pretrained(folder)


def tiny_moonshine() -> TinyAed:
    """Moonshine, which ends after 40 labels."""
    units = tiny_bpe("characters")
    sizes = {"vocab_size": units.size, "hidden_size": DIM, "intermediate_size": 64, "max_position_embeddings": 60}
    both = {f"{side}_num_{what}": size for side in ("encoder", "decoder") for what, size in
            (("hidden_layers", 2), ("attention_heads", 4))}  # fmt: skip
    torch.manual_seed(0)
    network = MoonshineForConditionalGeneration(MoonshineConfig(**sizes, **both)).eval()
    shake(network, 0, 0.3)
    network.generation_config = GenerationConfig(
        decoder_start_token_id=1, bos_token_id=1, eos_token_id=EOS, pad_token_id=EOS, max_length=40
    )
    return TinyAed(varied(network, 0, 0.7), units, Wav2Vec2FeatureExtractor(do_normalize=False))


def varied(network: Any, seed: int, amount: float) -> PreTrainedModel:
    """Draws the row of the end anew, so that some transcripts end by themselves."""
    row = network.get_output_embeddings().weight.data[EOS]
    row[:] = amount * torch.randn(row.shape, generator=torch.Generator().manual_seed(seed))
    return network  # type: ignore[no-any-return]


AEDS: dict[str, Callable[[], TinyAed]] = {"moonshine": tiny_moonshine}
LANGUAGES: dict[str, str] = {}
"""What must be asked for of those that are told their language."""
