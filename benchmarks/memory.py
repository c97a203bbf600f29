"""What training takes of memory: estimates for LLMs that do not fit here, and one beside what was measured.

OMP_NUM_THREADS=1 python benchmarks/memory.py table
OMP_NUM_THREADS=1 python benchmarks/memory.py measure

`table`: Qwen2's shapes without weights (torch's `meta` device), a batch of 16 rows of 256 positions, of which 48 are
labels, layers computed again in the backward pass (`run.gradient_checkpointing`), float32; GB of one GPU.
`measure`: a language model of 64 million parameters; the most that a process held, less what one with a model of next
to no size holds.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from distributed import LLAMA
from kikitori.train.build.task import build_task
from kikitori.train.memory.estimate import Estimate, LiveTensors, estimate, fits, share
from kikitori.train.memory.recompute import checkpoint_activations
from kikitori.train.recipe.optim import Run
from kikitori.train.recipe.recipe import load_recipe
from kikitori.train.tasks.base import BatchPosition

SHAPES = {  # hidden, feed-forward, layers, heads, heads of keys, vocabulary, tied
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}
ROWS, POSITIONS, LABELS, RANK = 16, 256, 48, 16
GPU = 80.0
TEXT = {"files": ["text.txt"], "batch_labels": 512, "dev_lines": 0}
LORA = {"policy": "lora", "lora": {"rank": 16, "alpha": 32.0}}


class Adapted(nn.Module):
    """A linear layer with a low-rank update, as PEFT makes them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, base.out_features, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(inputs) + self.up(self.down(inputs))
        return result


def table() -> None:
    print("GB of one GPU | alone or DDP | fsdp over 2 | 8 | 64")
    for name, shape in SHAPES.items():
        for lora in (False, True):
            llm, activations = on_meta(shape, lora=lora)
            run = Run(epochs=1)
            found = [estimate(llm, run, activations), *(share(llm, run, activations, n) for n in (2, 8, 64))]
            fitting = [
                line.split(", ")[1].split(":")[0] for line in fits(llm, run, activations, GPU) if "not" not in line
            ]
            print(f"{name} {'LoRA' if lora else 'full'} | " + " | ".join(f"{each.total / 2**30:.1f}" for each in found))
            print(f"    {gigabytes(found[0])}; a GPU of {GPU:g} GB takes: {', '.join(fitting)}")


def on_meta(shape: tuple[Any, ...], *, lora: bool) -> tuple[nn.Module, int]:
    """An LLM without weights, and the bytes that a forward pass keeps."""
    hidden, inner, layers, heads, keys, vocabulary, tied = shape
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if lora:
            llm.requires_grad_(False)
            for layer in llm.model.layers:
                for name in ("q_proj", "v_proj"):
                    setattr(layer.self_attn, name, Adapted(getattr(layer.self_attn, name)))
        checkpoint_activations(llm)
        llm.train()
        embeds = torch.empty(ROWS, POSITIONS, hidden, requires_grad=True)
        with LiveTensors() as tensors:
            states = llm.model(None, {"full_attention": None}, inputs_embeds=embeds, use_cache=False).last_hidden_state
            logits = llm.lm_head(states[:, -LABELS:]).flatten(0, 1)
            nn.functional.cross_entropy(logits, torch.empty(ROWS * LABELS, dtype=torch.int64))
    return llm, tensors.peak


def measure() -> None:
    print("MB | estimated | measured | measured / estimated")
    for what, llm in (("full", {"config": LLAMA}), ("LoRA", {"config": LLAMA, **LORA})):
        for way, processes in (("none", 1), ("fsdp", 2)):
            with tempfile.TemporaryDirectory() as folder:
                recipe = write(Path(folder), llm, way)
                task = estimated(recipe, processes if way == "fsdp" else 1)
                small = {"config": {**LLAMA, "hidden_size": 20, "intermediate_size": 8, "num_hidden_layers": 1}}
                base = largest(write(Path(folder) / "small", {**llm, **small}, way), processes)
                taken = largest(recipe, processes) - base
            megabytes = task.total / 2**20
            print(f"{what}, {way}, {processes} processes | {megabytes:.0f} | {taken:.0f} | {taken / megabytes:.2f}")


def estimated(path: Path, processes: int) -> Estimate:
    """The estimate of a recipe, for a process alone or one of several; see `kikitori.train.run.dry_run`."""
    recipe = load_recipe(path)
    task = build_task(recipe, lambda _: None)
    batch = task.load(max(task.batches(0), key=task.size), 0)
    task.module.train()
    with LiveTensors() as tensors:
        task.loss(batch, BatchPosition(0, 0, 0.0))
    if processes == 1:
        return estimate(task.module, recipe.run, tensors.peak)
    return share(task.module, recipe.run, tensors.peak, processes)


def write(folder: Path, llm: dict[str, Any], sharding: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text("all the words of this line are read by a small machine\n" * 160)
    recipe = {
        "task": "language_model", "data_root": str(folder), "text": TEXT, "llm": llm,
        "units": {"kind": "characters", "text_form": "en_plain"}, "optim": {"lr": 1e-4},
        "run": {"epochs": 1, "device": "cpu", "sharding": sharding, "gradient_checkpointing": True},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def largest(recipe: Path, processes: int) -> float:
    """Megabytes that the largest process of a run held at most."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "kikitori"]
    job = [*command, "train", str(recipe), "-o", str(recipe.parent / "run")]
    # Else the C library keeps much of what was freed.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
    process = subprocess.Popen(job, env=environment, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{recipe} failed")
    return used.ru_maxrss / 1024


def gigabytes(found: Estimate) -> str:
    parts = {"weights": found.weights, "gradients": found.gradients, "AdamW": found.optimizer, "copy": found.copies}
    return ", ".join(f"{n} {size / 2**30:.2f}" for n, size in {**parts, "activations": found.activations}.items())


if __name__ == "__main__":
    {"table": table, "measure": measure}[sys.argv[1]]()
