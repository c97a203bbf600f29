"""The training loop: batches of a task in, checkpoints, metrics and an exported model out.

It knows nothing of speech: a `Task` gives batches, losses and dev scores. Everything random is a function of the
recipe's seed, the epoch and the batch, or comes from torch's generator, which checkpoints keep; a resumed run on the
CPU therefore continues bit for bit. `guard.py` keeps the weights finite, `selection.py` picks those to export,
`metrics.py` keeps the numbers and `checkpoint.py` all of it on disk.
"""

import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kikitori.data.prefetch import prefetch
from kikitori.data.speech import leave_out
from kikitori.io.files import replace_folder
from kikitori.model.device import torch_device
from kikitori.train.loop.checkpoint import (
    Checkpoint,
    add_shards,
    find_newest,
    optimizer_tensors,
    random_states,
    read_checkpoint,
    restore_optimizer,
    restore_random,
    save_checkpoint,
)
from kikitori.train.loop.guard import Guard
from kikitori.train.loop.metrics import Metrics
from kikitori.train.loop.optim import build_optimizer, lr_scale, set_lr
from kikitori.train.loop.provenance import differences
from kikitori.train.loop.selection import Selection
from kikitori.train.loop.stages import plan
from kikitori.train.loop.state import check_finite, check_frozen, frozen_digests, learnt, load_weights, statistics
from kikitori.train.loop.step import Gathered, Gradients
from kikitori.train.parallel import processes
from kikitori.train.parallel.shards import pieces_like, whole
from kikitori.train.parallel.strategy import build_strategy
from kikitori.train.recipe.optim import Optim, Run
from kikitori.train.tasks.base import BatchPosition, Task
from kikitori.train.timing.profile import profiled
from kikitori.train.timing.stopwatch import Stopwatch


@dataclass
class Trainer:
    """A run: the task, its settings and where it stands.

    Attributes:
        stop: Asked after each step whether to save and end.
        provenance: What checkpoints say of where they come from, as JSON.
        product: Name of the folder that the task exports to at the end.
        alone: Leaves other processes that torchrun started to themselves.
    """

    task: Task
    optim: Optim
    run: Run
    seed: int
    directory: Path
    log: Callable[[str], None]
    stop: Callable[[], bool] = lambda: False
    provenance: dict[str, Any] = field(default_factory=dict)
    product: str = "model"
    alone: bool = False
    epoch: int = 0
    batch: int = 0
    step: int = 0
    _started: float = 0.0
    _started_at: float = 0.0
    _stepped: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.device = torch.device(torch_device(self.run.device))
        self.rank, self.processes = (0, 1) if self.alone else processes.start(self.device)
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        self.stages = plan(self.task.module, self.task.unfreeze_at, self.task.component)
        self.frozen = frozen_digests(self.task.module, self.stages.starts, self.task.component)
        processes.check_same({**self.provenance, "frozen weights": self.frozen})
        self.strategy = build_strategy(self.task, self.run, self.device, self.processes)
        self.task.module.to(self.device)  # FSDP2 has moved its pieces: as a whole it need not fit
        self.optimizer = build_optimizer(self.task.module, self.optim, self.task.lr_factor)
        self.metrics = Metrics(self.directory, self.log, writes=self.rank == 0)
        self.guard = Guard(self.task.module, self.directory, self.log, writes=self.rank == 0)
        self.watch = Stopwatch()
        self.gradients = Gradients(
            self.task, self.strategy, self.metrics, self.watch, self.processes, self.device, self.run.precision
        )
        self.selection = Selection(self.run, self.stages.starts)
        self._statistics = list(statistics(self.task.module).values())
        # Processes start from equal weights and go on with random numbers of their own.
        torch.manual_seed(self.seed + self.rank)
        np.random.seed((self.seed + self.rank) % 2**32)  # transformers' masking draws from this generator

    def fit(self) -> bool:
        """Trains to the last epoch, then exports `directory/product`; False if it was stopped before that.

        Where each process holds but a piece of the model, the export is left to a trainer that is `alone`.

        Raises:
            TrainingError: Too many steps were not finite, a checkpoint cannot be written, or a process was lost.
        """
        steps = self.run.profile if self.rank == 0 else 0
        with processes.together(), profiled(steps, self.directory, self.log) as self._stepped:
            return self._fit()

    def _fit(self) -> bool:
        self._started, self._started_at = time.monotonic(), self._progress(1)
        self.metrics.rewind(self.step)
        for line in self.stages.describe():
            self.log(line)
        while self.epoch < self.run.epochs and not self.selection.exhausted:
            if self._run_epoch():
                self.log(f"stopped on request after step {self.step}; the checkpoint is written, go on with --resume")
                return False
        if self.step < max(self.stages.starts.values()):
            self.log(f"warning: the run ended after step {self.step}; {self.stages.describe()[-1]}")
        if self.rank == 0 and not self.strategy.sharded:
            self._export()
        processes.wait()
        return True

    def resume(self, *, weights_only: bool = False) -> None:
        """Continues from the newest undamaged checkpoint.

        `weights_only` takes one whose weights alone are sound too, and starts the optimiser, the random numbers and the
        choice of weights to export afresh.

        Raises:
            TrainingError: There is none, or it belongs to another recipe.
        """
        # The first process looks for all: they go on from the same one, and digests are checked once.
        found = find_newest(self.directory / "checkpoints", weights_only=weights_only) if self.rank == 0 else None
        path, damaged = processes.gather(found)[0]
        empty = pieces_like(dict(self.task.module.named_parameters())) if self.strategy.sharded else whole
        checkpoint = read_checkpoint(path, weights_only=weights_only, empty=empty)
        for line in damaged:
            self.log(f"warning: {line}")
        state = checkpoint.state
        load_weights(learnt(self.task.module, self.stages.starts), checkpoint.tensors["model"], where=path)
        check_frozen(state["frozen"], self.frozen, state["provenance"].get("recipe", {}), where=path)
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.guard.skipped = state["skipped"]
        leave_out(self.task.speech, state.get("left_out", []))
        if not weights_only:
            restore_optimizer(self.optimizer, self.task.module, checkpoint.tensors["optimizer"])
            restore_random(checkpoint, self.rank)
            self.selection.restore(checkpoint, self.device)
            self.guard.in_a_row = state["skipped_in_a_row"]
            self.metrics.restore(state["sums"], self.rank, self.processes)
        for line in differences(state["provenance"], self.provenance):
            self.log(f"warning: {line}")
        what = ", its weights only" if weights_only else ""
        self.log(f"resumed from {path.name}{what}: epoch {self.epoch + 1}, batch {self.batch}")

    def _run_epoch(self) -> bool:
        """Trains one epoch, or what is left of it; True if it was stopped."""
        batches = self.task.batches(self.epoch)
        self._enter_stage()
        epoch, places, gathered = self.epoch, range(self.batch, len(batches), self.processes), Gathered()
        own = (batches[place] if place < len(batches) else [] for place in (first + self.rank for first in places))
        # None where an epoch ends with fewer batches than processes.
        ahead = prefetch(own, lambda indices: self.task.load(indices, epoch) if indices else None)
        for index, (indices, batch) in zip(places, self.watch.waiting("data", ahead), strict=True):
            position = self._position(len(batches), index + self.rank)
            if not gathered.batches:
                if self.step in self.stages.later:
                    self._enter_stage()
                self.guard.remember()
            gathered.batches += 1
            last = index + self.processes >= len(batches)
            complete = gathered.batches == self.optim.accumulate or last
            with nullcontext() if complete else self.strategy.partial():
                self.gradients.add(batch, indices, position, gathered, complete=complete)
            if not complete:
                continue
            with self.watch.part("update"):
                position = self._position(len(batches), min(index + self.processes, len(batches)) - 1)
                updated = self._update(position, gathered)
            gathered = Gathered()
            self._stepped()
            if updated and self.step % self.run.log_every == 0:
                self._log_step(position)
            stopping = not last and self._asked_to_stop()
            if stopping or (updated and self.step % self.run.checkpoint_every == 0 and not last):
                self.batch = index + self.processes
                self._save()
            if stopping:
                return True
        self.epoch, self.batch = self.epoch + 1, 0
        for remark in self.strategy.remarks():
            self.log(f"warning: {remark}")
        self._end_epoch()
        return self.epoch < self.run.epochs and self._asked_to_stop()

    def _position(self, num_batches: int, batch: int) -> BatchPosition:
        return BatchPosition(self.epoch, batch, self._progress(num_batches, batch))

    def _asked_to_stop(self) -> bool:
        # One process that is told to stop stops them all.
        return processes.total(int(self.stop()))[0] > 0

    def _enter_stage(self) -> None:
        self.stages.enter(self.step)
        self.strategy.enter_stage()

    def _update(self, position: BatchPosition, gathered: Gathered) -> bool:
        """Moves the weights; False if there was nothing to learn from, or nothing sound."""
        used, problems = processes.total(gathered.used, int(gathered.problem is not None))
        if not used and not problems:
            return False
        if not problems:
            norm = self.gradients.average(used, self.optim.max_grad_norm)
            if not isfinite(norm):
                gathered.problem, problems = f"the gradient is {norm}", 1
        if problems:
            self.optimizer.zero_grad(set_to_none=True)
            row = {"epoch": position.epoch, "batch": position.batch, "step": self.step}
            self.guard.skip(gathered.problem, row, gathered.utt_ids)
            return False
        self.guard.passed()
        self.metrics.add({"grad_norm": norm * gathered.used})
        set_lr(self.optimizer, lr_scale(self.optim.schedule, position.progress))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # At every step, so that it does not matter when checkpoints are written: they hold the first process's.
        processes.average_tensors(self._statistics)
        self.step += 1
        return True

    def _end_epoch(self) -> None:
        scores: dict[str, float] = {}
        if self.epoch % self.run.evaluate_every == 0 or self.epoch == self.run.epochs:
            self.task.module.eval()
            processes.share_left_out(self.task.speech)
            scores = self.strategy.evaluate()  # all processes choose and stop alike
        if scores:
            self.metrics.dev(self.epoch, self.run.epochs, self.step, scores)
        self.selection.offer(self.task.module, self.epoch, scores)
        if self.selection.exhausted:
            self.log(f"dev has not improved in {self.selection.stale} evaluations; the training ends here")
        self._save()

    def _export(self) -> None:
        if self.selection.apply(self.task.module):
            self.task.module.eval()
            if scores := self.task.evaluate():
                self.metrics.final(self.step, scores)
        with replace_folder(self.directory / self.product) as staging:
            self.task.export(staging)
        self.log(f"{self.product} written to {self.directory / self.product}")

    def _progress(self, num_batches: int, index: int = 0) -> float:
        return (self.epoch + index / num_batches) / self.run.epochs

    def _log_step(self, position: BatchPosition) -> None:
        elapsed, done = time.monotonic() - self._started, position.progress - self._started_at
        left = f" left {elapsed / done * (1.0 - position.progress) / 60:.0f} min" if done > 0 else ""
        lr, passes = self.optimizer.param_groups[0]["lr"], position.progress * self.run.epochs
        self.metrics.training(self.epoch + 1, passes, self.step, lr, left, self.watch.shares())

    def _save(self) -> None:
        random_tensors, numpy_states = random_states()
        model = learnt(self.task.module, self.stages.starts)
        check_finite(model, self.step)
        shared = {
            "model": model,
            "optimizer": optimizer_tensors(self.optimizer, self.task.module),
            **self.selection.tensors(),
        }
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "skipped": self.guard.skipped,
            "skipped_in_a_row": self.guard.in_a_row,
            "selection": self.selection.state(),
            "sums": processes.gather(self.metrics.sums),
            "numpy": numpy_states,
            "left_out": processes.share_left_out(self.task.speech),
            "frozen": self.frozen,
            "provenance": self.provenance,
        }
        folder, keep = self.directory / "checkpoints", self.run.keep_checkpoints
        if self.strategy.sharded and self.rank > 0:
            add_shards(folder, self.step, shared)
        elif self.strategy.sharded:
            save_checkpoint(folder, self.step, Checkpoint({"random": random_tensors}, state), keep=keep, shards=shared)
        elif self.rank == 0:
            save_checkpoint(folder, self.step, Checkpoint({**shared, "random": random_tensors}, state), keep=keep)
        processes.wait()
