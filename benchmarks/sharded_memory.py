"""Memory of a training step in each of two processes, DDP and FSDP2, beside what `--dry-run --gpu-memory` estimates.

OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py

A language model of 43 million parameters, with and without LoRA, on the CPU (gloo). Measured is the most that a process
holds (resident) in a step after the first epoch, when all that it keeps is there, less what it held before it built the
model (libraries); and apart from it the most while the model is built and shared out.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from distributed import LLAMA

PROCESSES, LINES, LABELS = 2, 24, 256
SHARDINGS = ("none", "fsdp")
LORA = {"policy": "lora", "lora": {"rank": 16, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}}
POLICIES: Mapping[str, Mapping[str, object]] = {"all learns": {}, "LoRA": LORA}
QUIET = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
"""Without the second the C library keeps much of what was freed."""


def main() -> None:
    print("MB of a process: estimated | measured in steps | measured while the model is built")
    for name, policy in POLICIES.items():
        for sharding in SHARDINGS:
            with tempfile.TemporaryDirectory() as folder:
                recipe = write_recipe(Path(folder), policy, sharding)
                estimated = int(_run([sys.executable, __file__, "estimate", str(recipe)]))
                job = [
                    "-m",
                    "torch.distributed.run",
                    "--nproc-per-node",
                    str(PROCESSES),
                    __file__,
                    "train",
                    str(recipe),
                ]
                lines = [line for line in _run([sys.executable, *job]).splitlines() if line.startswith("MB ")]
            steps, built = (max(int(line.split()[column]) for line in lines) for column in (1, 2))
            print(f"{name}, {sharding} | {estimated} | {steps} | {built}; measured / estimated {steps / estimated:.2f}")


def write_recipe(folder: Path, policy: Mapping[str, object], sharding: str) -> Path:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(200)]
    (folder / "text.txt").write_text("".join(f"{' '.join(draw.choices(words, k=10))}\n" for _ in range(LINES)))
    recipe = {
        "task": "language_model",
        "data_root": str(folder),
        "units": {"kind": "characters", "text_form": "en_plain"},
        "text": {"files": ["text.txt"], "batch_labels": LABELS, "dev_lines": 0},
        "llm": {"config": {**LLAMA, "num_hidden_layers": 8}, **policy},
        "optim": {"lr": 1e-4},
        "run": {"epochs": 2, "device": "cpu", "average_last": 1, "sharding": sharding, "gradient_checkpointing": True},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def estimate(path: Path) -> None:
    """Prints megabytes as a dry run estimates them."""
    from kikitori.train.build.task import build_task
    from kikitori.train.memory.estimate import LiveTensors, estimate, share
    from kikitori.train.recipe.recipe import load_recipe
    from kikitori.train.tasks.base import BatchPosition

    recipe = load_recipe(path)
    task = build_task(recipe, lambda _: None)
    batch = task.load(max(task.batches(0), key=task.size), 0)
    task.module.train()
    with LiveTensors() as tensors:
        task.loss(batch, BatchPosition(0, 0, 0.0))
    whole = estimate(task.module, recipe.run, tensors.peak)
    found = share(task.module, recipe.run, tensors.peak, PROCESSES) if recipe.run.sharding == "fsdp" else whole
    print(round(found.total / 2**20))


def train(path: Path) -> None:
    """Trains as one of several processes; prints what it held."""
    import peft  # noqa: F401  (libraries do not count)
    import torch

    from kikitori.train.build.task import build_task
    from kikitori.train.loop.trainer import Trainer
    from kikitori.train.recipe.recipe import load_recipe

    recipe = load_recipe(path)
    torch.nn.Linear(8, 8)(torch.randn(2, 8)).sum().backward()
    before, held = _kilobytes("VmRSS:"), list[int]()

    def stepped() -> bool:
        if trainer.epoch:
            held.append(_kilobytes("VmHWM:") if held else 0)
            Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
        return False

    torch.manual_seed(recipe.seed)
    task = build_task(recipe, lambda _: None)
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, path.parent, lambda _: None, stop=stepped)
    built = _kilobytes("VmHWM:")
    trainer.fit()
    print(f"MB {(max(held) - before) // 1024} {(built - before) // 1024}", flush=True)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["estimate", recipe]:
            estimate(Path(recipe))
        case ["train", recipe]:
            train(Path(recipe))
        case _:
            main()
