"""`kikitori train`: one recipe, one run folder.

The folder holds `recipe.yaml` (as it was run), `environment.json`, `log.txt`, `metrics.jsonl`, `checkpoints/`, perhaps
`skipped.jsonl`, and at the end `curves.png` and `model/`, which `kikitori.load` reads, or `adapter/` of an adaptation.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kikitori.errors import TrainingError
from kikitori.io.files import LOCK, append_text, locked, write_text
from kikitori.io.progress import Bar, no_bar
from kikitori.train.build.corpora import Log, check_speech
from kikitori.train.build.task import build_task
from kikitori.train.card import write_run_card
from kikitori.train.loop.checkpoint import list_checkpoints
from kikitori.train.loop.curves import draw_curves
from kikitori.train.loop.provenance import provenance
from kikitori.train.loop.trainer import Trainer
from kikitori.train.memory.estimate import LiveTensors, estimate, fits
from kikitori.train.parallel import processes
from kikitori.train.recipe.recipe import Recipe, load_recipe
from kikitori.train.tasks.base import BatchPosition


def train(
    recipe_path: Path | str,
    directory: Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    weights_only: bool = False,
) -> bool:
    """Trains a recipe into a run folder; False if SIGTERM ended it early, with everything saved.

    Resuming goes on from the newest undamaged checkpoint; a run that was killed before its first one begins again. The
    weights alone do, for example, when the optimiser's state is damaged.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit, or the run broke off.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    return train_recipe(recipe, directory, resume=resume, weights_only=weights_only)


def train_recipe(recipe: Recipe, directory: Path, *, resume: bool = False, weights_only: bool = False) -> bool:
    """Trains a recipe that is not in a file; see `train` for the arguments."""
    first = int(os.environ.get("RANK", "0")) == 0
    if weights_only and not resume:
        raise TrainingError("there is nothing to take weights from", where="--weights-only", remedy="add --resume")
    if first and resume and not directory.is_dir():
        raise TrainingError("there is no run to resume", where=directory, remedy="start without --resume")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory) if first else nullcontext(), _sigterm() as stop:
        if first and not resume and any(path.name != LOCK for path in directory.iterdir()):
            raise TrainingError("the run folder is not empty", where=directory, remedy="use --resume or another folder")
        return _train(recipe, directory, resume, weights_only, stop)


def _train(recipe: Recipe, directory: Path, resume: bool, weights_only: bool, stop: Callable[[], bool]) -> bool:
    first = int(os.environ.get("RANK", "0")) == 0
    log: Log = RunLog(directory / "log.txt") if first else _silent
    torch.manual_seed(recipe.seed)  # of the initial weights
    task = build_task(recipe, log)
    origin = provenance(recipe, task.data_digest(), task.data_counts())
    if first:
        _save_recipe(recipe, directory / "recipe.yaml")
        known = origin["environment"] | {"data": {"sha256": origin["data"], **origin["counts"]}}
        write_text(directory / "environment.json", json.dumps(known, indent=1) + "\n")
    product = "adapter" if recipe.task == "adaptation" else "model"
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, directory, log, stop, origin, product)
    sharded = trainer.strategy.sharded
    for line in describe(task.module):
        log(line)
    if resume and list_checkpoints(directory / "checkpoints"):
        trainer.resume(weights_only=weights_only)
    elif resume:
        log("no checkpoint was written yet; the run begins again")
    if not trainer.fit():
        return False
    if sharded:
        del task, trainer
        _export_alone(recipe, directory, log, origin, product)
    if first:
        write_run_card(recipe, directory, directory / product)
    if first and draw_curves(directory / "metrics.jsonl", directory / "curves.png"):
        log(f"curves drawn in {directory / 'curves.png'}")
    return True


def _export_alone(recipe: Recipe, directory: Path, log: Log, origin: dict[str, Any], product: str) -> None:
    """Exports a run that several processes have trained in pieces: the first one reads all of its last checkpoint."""
    rank = processes.rank()
    processes.leave()
    if rank == 0:
        torch.manual_seed(recipe.seed)
        task = build_task(recipe, _silent)
        whole = Trainer(
            task, recipe.optim, recipe.run, recipe.seed, directory, log, provenance=origin, product=product, alone=True
        )
        whole.resume()
        whole.fit()


def _silent(_: str) -> None:
    """The log of every process but the first."""


def dry_run(
    recipe_path: Path | str,
    overrides: Sequence[str] = (),
    *,
    gpu_memory: float | None = None,
    log: Log = _silent,
    bar: Bar = no_bar,
) -> list[str]:
    """Checks everything a run needs, one loss included, and describes it with the memory it will take.

    With `gpu_memory` (GB) it also says on how many GPUs of that size it fits.
    The lines are logged too as they come; a bar shows how many files are checked.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit.
    """
    recipe = load_recipe(recipe_path, tuple(overrides))
    lines: list[str] = []

    def tell(*more: str) -> None:
        lines.extend(more)
        for line in more:
            log(line)

    torch.manual_seed(recipe.seed)
    task = build_task(recipe, tell)
    for loader in task.speech:
        tell(*check_speech(loader, bar))
    tell(*describe(task.module))
    batches = task.batches(0)
    last = task.batches(recipe.run.epochs - 1)  # the first epochs may be of short utterances
    batch = task.load(max(last, key=task.size), 0)
    if batch is None:
        raise TrainingError("no file of the largest batch can be read", remedy="check the manifests")
    task.module.train()
    with LiveTensors() as tensors, torch.autocast("cpu", torch.bfloat16, enabled=recipe.run.precision == "bfloat16"):
        loss, parts = task.loss(batch, BatchPosition(0, 0, 0.0))
    task.module.eval()
    tell(*task.describe(batch))
    needed = sum(task.size([index]) for indices in batches for index in indices)
    padding = 1.0 - needed / sum(map(task.size, batches))
    tell(f"batches per epoch: {len(batches)}, epochs: {recipe.run.epochs}, padding: {padding:.1%}")
    tell(*estimate(task.module, recipe.run, tensors.peak).lines())
    if gpu_memory is not None:
        tell(*fits(task.module, recipe.run, tensors.peak, gpu_memory))
    tell(f"loss before training: {loss.item():.3f} " + " ".join(f"{k} {v:.3f}" for k, v in parts.items()))
    return lines


def describe(module: nn.Module) -> list[str]:
    """Parameters per component, all and trainable."""
    lines = []
    for name, part in module.named_children():
        for inner, component in part.named_children():
            total = sum(p.numel() for p in component.parameters())
            learning = sum(p.numel() for p in component.parameters() if p.requires_grad)
            if total:
                lines.append(f"{name}.{inner}: {total / 1e6:.2f} M parameters, {learning / 1e6:.2f} M trainable")
    return lines


@contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM only asks to stop; gives the question whether it came."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class RunLog:
    """Writes lines to standard error and to the run's log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        """Logs one line."""
        sys.stderr.write(line + "\n")
        append_text(self.path, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def _save_recipe(recipe: Recipe, path: Path) -> None:
    import yaml

    values = dataclasses.asdict(recipe)
    write_text(path, yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
