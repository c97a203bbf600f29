"""`kikitori train`: one recipe, one run folder.

The folder holds `recipe.yaml` (as it was run), `log.txt`, `metrics.jsonl`, `checkpoints/`, `curves.png` and, at the
end, `model/`, which `kikitori.load` reads.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.build import Log, build_task
from kikitori.train.recipe import Recipe, load_recipe
from kikitori.train.trainer import Moment, Trainer


def train(recipe_path: Path | str, directory: Path, *, overrides: Sequence[str] = (), resume: bool = False) -> None:
    """Trains a recipe into `directory`.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit, or the run broke off.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    first = int(os.environ.get("RANK", "0")) == 0
    if first and not resume and directory.exists() and any(directory.iterdir()):
        raise TrainingError("the run folder is not empty", where=directory, remedy="use --resume or another folder")
    directory.mkdir(parents=True, exist_ok=True)
    log: Log = RunLog(directory / "log.txt") if first else _silent
    if first:
        _save_recipe(recipe, directory / "recipe.yaml")
    task = build_task(recipe, log)
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, directory, log)
    for line in describe(task.module):
        log(line)
    if resume:
        trainer.resume()
    trainer.fit()


def dry_run(recipe_path: Path | str, overrides: Sequence[str] = ()) -> list[str]:
    """Checks everything a run needs, one loss included, and describes it.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    lines: list[str] = []
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


def _silent(_: str) -> None:
    """The log of every process but the first."""


class RunLog:
    """Writes lines to standard error and to the run's log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        """Logs one line."""
        import sys

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
