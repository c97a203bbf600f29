"""Small things to train: a toy task for the trainer, and recipes over synthetic recordings for the real tasks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
import yaml
from torch import Tensor, nn

from kikitori.data.speech import SpeechLoader
from kikitori.io.audio import SAMPLE_RATE
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.loop.trainer import Trainer
from kikitori.train.recipe.optim import Optim, Piecewise, Run
from kikitori.train.recipe.recipe import Recipe, load_recipe
from kikitori.train.tasks.base import BatchPosition
from tests.tiny import tiny_waveform

TEXTS = ("a cat", "the dog", "a small bird", "two cats", "the bird", "a dog and a cat", "small dogs")
PARAKEET = {
    "model_type": "parakeet_encoder",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_kernel_size": 5,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 4,
    "num_mel_bins": 40,
    "dropout": 0.2,
    "layerdrop": 0.2,
}
HUBERT = {
    "model_type": "hubert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.3,
    "mask_time_length": 2,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
AUGMENT = {
    "speeds": [0.9, 1.0, 1.1],
    "gain_db": 6.0,
    "noise_probability": 0.5,
    "spec_augment": {"time_masks_per_second": 2.0, "max_time_mask": 5, "frequency_masks": 1, "ramp": 0.0},
}


class Interruption(Exception):  # noqa: N818
    """Ends a run where a test wants it to end."""


def interrupt(monkeypatch: Any, task: type, after: int) -> None:
    """Lets so many losses of a kind of task through, then raises."""
    real, count = task.loss, 0  # type: ignore[attr-defined]

    def loss(self: Any, batch: Any, position: BatchPosition) -> Any:
        nonlocal count
        if count == after:
            raise Interruption
        count += 1
        return real(self, batch, position)

    monkeypatch.setattr(task, "loss", loss)


@dataclass(frozen=True)
class ToyBatch:
    inputs: Tensor
    targets: Tensor
    utt_ids: tuple[str, ...]


class Toy:
    """Learns a random function; utterance i is the same whatever the epoch."""

    def __init__(self, num_batches: int = 5, dropout: float = 0.0, scores: tuple[float, ...] = ()) -> None:
        torch.manual_seed(7)
        self.num_batches, self.scores = num_batches, scores
        self.module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Dropout(dropout), nn.Linear(8, 1))
        self.inputs, self.targets = torch.randn(2 * num_batches, 4), torch.randn(2 * num_batches, 1)
        self.seen: list[dict[str, Tensor]] = []
        self.losses = 0
        self.stop_after: int | None = None
        self.starts: dict[str, int] = {}
        self.speech: tuple[SpeechLoader, ...] = ()

    def batches(self, epoch: int) -> list[list[int]]:
        order = torch.randperm(2 * self.num_batches, generator=torch.Generator().manual_seed(epoch)).tolist()
        return [order[i : i + 2] for i in range(0, len(order), 2)]

    def load(self, indices: list[int], epoch: int) -> ToyBatch | None:  # noqa: ARG002
        return ToyBatch(self.inputs[indices], self.targets[indices], tuple(f"utt{i}" for i in indices))

    def loss(self, batch: ToyBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:  # noqa: ARG002
        if self.losses == self.stop_after:
            raise Interruption
        self.losses += 1
        loss = (self.module(batch.inputs) - batch.targets).square().mean()
        return loss, {"part": loss.item() / 2}

    def evaluate(self) -> dict[str, float]:
        self.seen.append({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        index = len(self.seen) - 1
        return {"score": self.scores[index]} if index < len(self.scores) else {}

    def data_digest(self) -> str:
        return "toy"

    def data_counts(self) -> dict[str, int]:
        return {"rows": 2 * self.num_batches}

    def component(self, parameter: str) -> str:
        return parameter

    def lr_factor(self, parameter: str) -> float:  # noqa: ARG002
        return 1.0

    def unfreeze_at(self, parameter: str) -> int:
        return self.starts.get(parameter, 0)

    def export(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)

    def size(self, indices: list[int]) -> float:
        return float(len(indices))

    def describe(self, batch: ToyBatch) -> list[str]:
        return [f"{len(batch.utt_ids)} rows"]

    def remarks(self) -> list[str]:
        return []


def toy_trainer(task: Any, directory: Path, **run: Any) -> tuple[Trainer, list[str]]:
    """A trainer with a constant learning rate, and the lines it logs."""
    directory.mkdir(parents=True, exist_ok=True)
    optim = {key: run.pop(key) for key in ("lr", "accumulate", "weight_decay") if key in run}
    lines: list[str] = []
    schedule = Piecewise(kind="piecewise", points=[(0.0, 1.0), (1.0, 1.0)])
    settings = Optim(**{"lr": 0.01, "schedule": schedule, **optim})
    return Trainer(task, settings, Run(**{"epochs": 3, "device": "cpu", **run}), 1, directory, lines.append), lines


def checkpoint_contents(directory: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint of a run folder, those in pieces put together."""
    groups = load_newest(directory / "checkpoints")[1].tensors
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def write_corpus(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """Seven short recordings as WAV, as split `train`, and two of them as `dev`; `rows` come on top."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, text in enumerate(TEXTS):
        seconds = 0.8 + 0.1 * index
        soundfile.write(folder / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        row = {"audio_filepath": f"{index}.wav", "duration": seconds, "text": text, "language": "en", "split": "train"}
        lines += [row] if index > 1 else [row, {**row, "split": "dev"}]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*lines, *(rows or [])]))
    return manifest


def acoustic_recipe(**changes: Any) -> dict[str, Any]:
    """A CTC run of two epochs over `write_corpus`; sections are merged with `changes`."""
    recipe: dict[str, Any] = {
        "task": "acoustic_model",
        "units": {"kind": "characters", "text_form": "en_plain"},
        "data": {
            "train": [{"path": "manifest.jsonl", "split": "train"}],
            "dev": [{"path": "manifest.jsonl", "split": "dev"}],
            "batch_seconds": 3.0,
            "max_batch_size": 2,
        },
        "encoder": {"config": dict(PARAKEET)},
        "ctc": {"weights": {2: 1.0}},
        "optim": {"lr": 0.01},
        "run": {"epochs": 2, "device": "cpu"},
    }
    return merged(recipe, changes)


def text_recipe(**changes: Any) -> dict[str, Any]:
    """A language model run over the transcripts of `write_corpus`."""
    recipe: dict[str, Any] = {
        "task": "language_model",
        "units": {"kind": "characters", "text_form": "en_plain"},
        "text": {"transcripts": [{"path": "manifest.jsonl", "split": "train", "repeat": 2}], "dev_lines": 3},
        "llm": {"config": dict(LLAMA)},
        "optim": {"lr": 0.01},
        "run": {"epochs": 2, "device": "cpu"},
    }
    return merged(recipe, changes)


def speech_llm_recipe(**changes: Any) -> dict[str, Any]:
    """A speech LLM run from scratch."""
    base = acoustic_recipe(task="speech_llm", bridge={"kind": "stack", "stride": 2}, llm={"config": dict(LLAMA)})
    return merged(base, changes)


def masked_recipe(**changes: Any) -> dict[str, Any]:
    """Masked prediction over `write_corpus`."""
    base = acoustic_recipe(
        task="masked_prediction",
        units=None,
        ctc=None,
        targets={"clusters": 8, "upsample": 2},
        masks={"share": 0.5, "seconds": 0.12},
    )
    return merged(base, changes)


def merged(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections of `changes` update those of `recipe`; None removes one, and a start replaces the other."""
    result = dict(recipe)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            section = {**result[key], **value}
            if "init" in value and "config" not in value:
                section.pop("config", None)
            result[key] = section
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def write_recipe(path: Path, data_root: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({**values, "data_root": str(data_root)}))
    return path


def make_recipe(folder: Path, data_root: Path, values: dict[str, Any]) -> Recipe:
    return load_recipe(write_recipe(folder / "recipe_to_load.yaml", data_root, values))
