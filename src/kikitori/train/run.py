"""`kikitori train`: one recipe, one run folder.

The folder holds `recipe.yaml` (as it was run), `log.txt`, `metrics.jsonl`, `checkpoints/`, `curves.png` and, at the
end, `model/`, which `kikitori.load` reads.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.build import build_task
from kikitori.train.recipe import Recipe, load_recipe
from kikitori.train.trainer import Trainer


def train(recipe_path: Path | str, directory: Path, *, overrides: Sequence[str] = (), resume: bool = False) -> None:
    """Trains a recipe into `directory`.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit, or the run broke off.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    if not resume and directory.exists() and any(directory.iterdir()):
        raise TrainingError("the run folder is not empty", where=directory, remedy="use --resume or another folder")
    directory.mkdir(parents=True, exist_ok=True)
    log = RunLog(directory / "log.txt")
    _save_recipe(recipe, directory / "recipe.yaml")
    task = build_task(recipe, log)
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, directory, log)
    for line in describe(task.module):
        log(line)
    if resume:
        trainer.resume()
    trainer.fit()


def describe(module: nn.Module) -> list[str]:
    """Parameters per component, all and trainable."""
    lines = []
    for name, part in module.named_children():
        for inner, component in part.named_children():
            total = sum(p.numel() for p in component.parameters())
            learning = sum(p.numel() for p in component.parameters() if p.requires_grad)
            lines.append(f"{name}.{inner}: {total / 1e6:.2f} M parameters, {learning / 1e6:.2f} M trainable")
    return lines


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
