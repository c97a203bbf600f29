"""The rows of docs/integration.md: trains a recipe, measures it on dev and test, and writes the table of all runs.

python benchmarks/integration.py train base bridge_conv ...     (recipes/integration/, into runs/integration/)
python benchmarks/integration.py table base bridge_conv ...
OMP_NUM_THREADS=1 python benchmarks/integration.py steps base bridge_conv ...     (how long a step takes, as a ratio)

A finished row is not trained again; one that broke off is resumed.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from kikitori.train.build.task import build_task
from kikitori.train.recipe.recipe import load_recipe
from kikitori.train.tasks.base import BatchPosition

RECIPES, RUNS = Path("recipes/integration"), Path("runs/integration")
MANIFEST = "../shared/speech/librispeech_clean_5/manifest.jsonl"
PROCESSES = 2
ROUNDS = 5
SPLITS = ("dev", "test")


def train(name: str) -> None:
    run = RUNS / name
    if not (run / "model").is_dir():
        torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(PROCESSES)]
        resume = ["--resume"] if run.is_dir() else []
        call(*torchrun, "-m", "kikitori", "train", str(RECIPES / f"{name}.yaml"), "-o", str(run), *resume)
    for split in SPLITS:
        if not (run / split / "report.json").is_file():
            options = ["--model", str(run / "model"), "--data", MANIFEST, "--split", split, "--decoding", "greedy"]
            call(
                sys.executable, "-m", "kikitori", "evaluate", *options, "--on-no-speech", "keep", "-o", str(run / split)
            )


def call(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def table(names: list[str]) -> None:
    print("| recipe | WER dev | WER test (95 %) | CTC WER dev | text loss | positions/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        run = RUNS / name
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        reports = {split: json.loads((run / split / "report.json").read_text()) for split in SPLITS}
        low, high = reports["test"]["wer_ci"]
        print(
            f"| `{name}` | {reports['dev']['wer']:.3f} | {reports['test']['wer']:.3f} ({low:.3f}-{high:.3f}) "
            f"| {last(metrics, 'final_wer_ctc_greedy'):.3f} | {last(metrics, 'text'):.2f} "
            f"| {reports['test']['positions_per_second']:.1f} |"
        )


def steps(names: list[str]) -> None:
    """Loss and gradients of the same batches, the recipes taking turns; ratios are to the first recipe."""
    tasks = {name: build_task(load_recipe(RECIPES / f"{name}.yaml"), lambda _: None) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(ROUNDS + 1):
        for name, task in tasks.items():
            batch = task.load(task.batches(0)[index], 0)
            task.module.train()
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = task.loss(batch, BatchPosition(0, index, 0.0))
            loss.backward()
            if index:  # the first round warms up
                times[name].append(time.perf_counter() - started)
            task.module.zero_grad()
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times[names[0]], strict=True)]
        print(f"{name:20} {median(values):.2f} s   ratio {median(ratios):.2f}")


def last(metrics: list[dict[str, Any]], key: str) -> float:
    return float([row[key] for row in metrics if key in row][-1])


if __name__ == "__main__":
    if sys.argv[1] == "train":
        for recipe in sys.argv[2:]:
            train(recipe)
    elif sys.argv[1] == "steps":
        steps(sys.argv[2:])
    else:
        table(sys.argv[2:])
