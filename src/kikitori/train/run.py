"""`kikitori train`: one recipe, one run folder.

The folder holds `recipe.yaml` (as it was run), `environment.json`, `log.txt`, `metrics.jsonl`, `checkpoints/` and, at
the end, `curves.png` and `model/`, which `kikitori.load` reads.
"""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.build import Log, build_task
from kikitori.train.checkpoint import list_checkpoints
from kikitori.train.curves import draw_curves
from kikitori.train.recipe import Recipe, load_recipe
from kikitori.train.trainer import Moment, Trainer

PACKAGES = ("kikitori", "torch", "transformers", "peft", "safetensors", "tokenizers", "sentencepiece", "numpy", "soxr")


def train(recipe_path: Path | str, directory: Path, *, overrides: Sequence[str] = (), resume: bool = False) -> None:
    """Trains a recipe into `directory`.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit, or the run broke off.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    first = int(os.environ.get("RANK", "0")) == 0
    if first and not resume and directory.exists() and any(directory.iterdir()):
        raise TrainingError("the run folder is not empty", where=directory, remedy="use --resume or another folder")
    if first and resume and not list_checkpoints(directory / "checkpoints"):
        raise TrainingError("there is no checkpoint to resume from", where=directory, remedy="start in a new folder")
    directory.mkdir(parents=True, exist_ok=True)
    log: Log = RunLog(directory / "log.txt") if first else _silent
    if first:
        _save_recipe(recipe, directory / "recipe.yaml")
        (directory / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
    torch.manual_seed(recipe.seed)  # of the initial weights
    task = build_task(recipe, log)
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, directory, log)
    for line in describe(task.module):
        log(line)
    if resume:
        trainer.resume()
    trainer.fit()
    if first and draw_curves(directory / "metrics.jsonl", directory / "curves.png"):
        log(f"curves drawn in {directory / 'curves.png'}")


def dry_run(recipe_path: Path | str, overrides: Sequence[str] = ()) -> list[str]:
    """Checks everything a run needs, one loss included, and describes it.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    lines: list[str] = []
    torch.manual_seed(recipe.seed)
    task = build_task(recipe, lines.append)
    lines += describe(task.module)
    batches = task.batches(0)
    batch = task.load(batches[0], 0)
    if batch is None:
        raise TrainingError("no file of the first batch can be read", remedy="check the manifests")
    task.module.eval()
    with torch.inference_mode():
        loss, parts = task.loss(batch, Moment(0, 0, 0.0))
    lines += task.describe(batch)
    lines.append(f"batches per epoch: {len(batches)}, epochs: {recipe.run.epochs}")
    lines.append(f"loss before training: {loss.item():.3f} " + " ".join(f"{k} {v:.3f}" for k, v in parts.items()))
    return lines


def describe(module: nn.Module) -> list[str]:
    """Parameters per component, all and trainable."""
    lines = []
    for name, part in module.named_children():
        for inner, component in part.named_children():
            total = sum(p.numel() for p in component.parameters())
            learning = sum(p.numel() for p in component.parameters() if p.requires_grad)
            lines.append(f"{name}.{inner}: {total / 1e6:.2f} M parameters, {learning / 1e6:.2f} M trainable")
    return lines


def environment() -> dict[str, object]:
    """Where a run takes place: versions, machine, the commit of the current folder, and how it was called."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "git": _git_commit(),
        "argv": sys.argv,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _git_commit() -> str | None:
    """Commit of the current folder, with `-dirty` behind it if tracked files differ; None outside of git."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _silent(_: str) -> None:
    """The log of every process but the first."""


class RunLog:
    """Writes lines to standard error and to the run's log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        """Logs one line."""
        sys.stderr.write(line + "\n")
        with self.path.open("a", encoding="utf-8") as out:
            out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def _save_recipe(recipe: Recipe, path: Path) -> None:
    import yaml

    values = dataclasses.asdict(recipe)
    path.write_text(yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
