"""R4: NaN and infinity in loss, gradient or input, at any step: the weights stay finite, and the log says what was."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kikitori.data.speech import SpeechBatch
from kikitori.errors import TrainingError
from kikitori.train.build.task import build_task
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.loop.state import first_not_finite, weights
from kikitori.train.loop.trainer import Trainer
from kikitori.train.tasks.base import BatchPosition
from tests.score.row import Row
from tests.train.helpers import acoustic_recipe, make_recipe, write_corpus

VALUES = (math.nan, math.inf, -math.inf)
WHERE = ("loss", "gradient", "input")
LIMIT = 3


def count_nonfinite(root: Path, positions: int) -> Row:
    """Injects each value at so many positions of a CTC run with batch norm; then lets it stay."""
    write_corpus(root)
    kept = tries = 0
    for value in VALUES:
        for position in range(positions):
            tries += 1
            kept += _survives(root, value, WHERE[position % 3], position % 8)
    stopped = sum(_stops(root, value, where) for value in VALUES for where in WHERE)
    return Row(
        "R4",
        "a loss, gradient or input that is not finite skips its step, is named by its utterances, and spoils nothing",
        kept,
        tries,
        (f"with trouble that stays, the run ended at its limit: {stopped} of {len(VALUES) * len(WHERE)}",),
    )


class _Spoilt(torch.autograd.Function):
    """The loss as it is, with a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, value: float) -> Tensor:
        ctx.value = value
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.value, None


class Injected:
    """A task with trouble in some of its batches, counted from 0 over the whole run."""

    def __init__(self, task: Any, value: float, where: str, first: int, last: int) -> None:
        self.task, self.value, self.where = task, value, where
        self.first, self.last = first, last
        self.seen = 0
        self.hit: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def loss(self, batch: SpeechBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        troubled = self.first <= self.seen <= self.last
        self.seen += 1
        if not troubled:
            result: tuple[Tensor, dict[str, float]] = self.task.loss(batch, position)
            return result
        self.hit += batch.utt_ids
        if self.where == "input":
            batch.waveforms[0, :2000] = self.value
        loss, parts = self.task.loss(batch, position)
        match self.where:
            case "loss":
                loss = loss * self.value
            case "gradient":
                loss = _Spoilt.apply(loss, self.value)
        return loss, parts


def _trainer(root: Path, value: float, where: str, first: int, last: int) -> tuple[Trainer, Injected, list[str]]:
    folder = root / "runs" / f"{len(list(root.glob('runs/*')))}"
    folder.mkdir(parents=True)
    recipe = make_recipe(folder, root, acoustic_recipe(data={"dev": []}))
    torch.manual_seed(1)
    lines: list[str] = []
    task = Injected(build_task(recipe, lines.append), value, where, first, last)
    trainer = Trainer(task, recipe.optim, recipe.run, recipe.seed, folder, lines.append)
    trainer.guard.max_in_a_row = LIMIT
    return trainer, task, lines


def _sound(trainer: Trainer) -> bool:
    _, newest, damaged = load_newest(trainer.directory / "checkpoints")
    return (
        first_not_finite(weights(trainer.task.module)) is None
        and not damaged
        and all(first_not_finite(tensors) is None for tensors in newest.tensors.values())
    )


def _survives(root: Path, value: float, where: str, position: int) -> bool:
    trainer, task, lines = _trainer(root, value, where, position, position)
    finished = trainer.fit()
    rows = [json.loads(line) for line in (trainer.directory / "skipped.jsonl").read_text().splitlines()]
    named = len(rows) == 1 and rows[0]["utterances"] == task.hit and any("step skipped" in line for line in lines)
    return finished and named and trainer.guard.skipped == 1 and trainer.step == task.seen - 1 and _sound(trainer)


def _stops(root: Path, value: float, where: str) -> bool:
    trainer, task, _ = _trainer(root, value, where, 5, 1000)
    try:
        trainer.fit()
    except TrainingError as error:
        return f"{LIMIT} steps in a row" in str(error) and task.seen == 5 + LIMIT and _sound(trainer)
    return False
