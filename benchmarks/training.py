"""One recipe of a speech LLM of pre-trained parts, and how its training is timed; `trainer.py` and `encoder_cache.py`.

An encoder that is frozen, a linear bridge over eight frames, SmolLM2-135M with LoRA on all linear layers, transcripts
in lower case. Processor time is that of all threads of the process, so that other work on the machine does not count.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kikitori.data.batching import epoch_batches
from kikitori.data.manifest import read_manifest
from kikitori.train.build.task import build_task
from kikitori.train.loop.trainer import Trainer
from kikitori.train.recipe.data import SpeechData
from kikitori.train.recipe.recipe import Recipe, load_recipe
from kikitori.types import Utterance

STRIDE = 8
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"rank": 16, "alpha": 32.0, "targets": LINEAR}
LLM = "smollm2-135m"


@dataclass
class Clock:
    """Seconds of processor time and of the clock on the wall, at each mark."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def mark(self) -> None:
        self.processor.append(time.process_time())
        self.wall.append(time.perf_counter())


def some_batches(manifest: Path, split: str, size: int, count: int) -> list[list[Utterance]]:
    """Batches of an epoch over all rows: full ones, from the shortest utterances to the longest, evenly spread."""
    rows = read_manifest(manifest, split=split).utterances
    durations = [row.duration for row in rows]
    data = SpeechData(train=[])
    batches = epoch_batches(
        durations,
        batch_seconds=1.01 * size * max(durations),  # so that the number of utterances decides
        max_batch_size=size,
        num_buckets=data.num_buckets,
        seed=0,
        epoch=0,
    )
    full = [[rows[index] for index in batch] for batch in batches if len(batch) == size]
    full.sort(key=lambda batch: sum(row.duration for row in batch))
    return [full[int((place + 0.5) * len(full) / count)] for place in range(count)]


def recipe(folder: Path, rows: list[Utterance], parts: Path, encoder: dict[str, Any], epochs: int) -> Recipe:
    """The recipe, written beside its manifest.

    Args:
        folder: For both.
        rows: What is trained on.
        parts: Folder of the encoder (`init` of `encoder`) and of the LLM.
        encoder: The section of the recipe.
        epochs: Passes.
    """
    lines = [
        json.dumps({"audio_filepath": str(row.audio_filepath.resolve()), "duration": row.duration, "text": row.text})
        for row in rows
    ]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    values = {
        "task": "speech_llm",
        "data_root": str(folder.resolve()),
        "units": {"kind": "llm", "text_form": "lower"},
        "data": {"train": [{"path": "rows.jsonl"}]},
        "encoder": {**encoder, "init": str(parts / encoder["init"]), "policy": "frozen"},
        "bridge": {"kind": "stack", "stride": STRIDE},
        "llm": {"init": str(parts / LLM), "policy": "lora", "lora": LORA},
        "optim": {"lr": 1e-4},
        "run": {"epochs": epochs, "device": "cpu", "log_every": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(folder / "recipe.yaml")


def trained(wanted: Recipe, folder: Path, size: int) -> Clock:
    """Trains, neighbouring rows in batches of so many; marks at the beginning and after each step."""
    clock = Clock()
    folder.mkdir(exist_ok=True)
    task: Any = build_task(wanted, _silent)
    task.batches = partial(_neighbours, len(task.train.utterances), size)
    trainer = Trainer(task, wanted.optim, wanted.run, wanted.seed, folder, _marking(clock))
    clock.mark()
    trainer.fit()
    return clock


def _neighbours(count: int, size: int, epoch: int) -> list[list[int]]:
    batches = [[*range(start, min(start + size, count))] for start in range(0, count, size)]
    return [batches[index] for index in np.random.default_rng(epoch).permutation(len(batches))]


def _marking(clock: Clock) -> Callable[[str], None]:
    def log(line: str) -> None:
        if " step " in line and line.startswith("epoch "):
            clock.mark()

    return log


def _silent(_: str) -> None:
    """No log."""
