"""The training loop: batches of a task in, checkpoints, metrics and an exported model out.

It knows nothing of speech: a `Task` gives batches, losses and dev scores. Everything random is a function of the
recipe's seed, the epoch and the batch, or comes from torch's generator, which checkpoints keep; a resumed run on the
CPU therefore continues bit for bit.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kikitori.errors import TrainingError
from kikitori.train import distributed
from kikitori.train.checkpoint import (
    Checkpoint,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
    torch_random_state,
)
from kikitori.train.optim import build_optimizer, lr_scale, set_lr
from kikitori.train.settings import Optim, Run


@dataclass(frozen=True)
class Moment:
    """Where in the training a batch stands.

    Attributes:
        epoch: From 0.
        batch: Index of the batch within its epoch.
        progress: Fraction of the training done, 0 to 1.
    """

    epoch: int
    batch: int
    progress: float


class Task(Protocol):
    """What is trained."""

    @property
    def module(self) -> nn.Module:
        """Everything that learns or is saved."""
        ...

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch as indices; a pure function of the epoch."""
        ...

    def load(self, indices: list[int], epoch: int) -> Any:
        """Reads a batch (called ahead, in another thread); None if nothing in it can be used."""
        ...

    def loss(self, batch: Any, moment: Moment) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise and its parts for the log."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Dev scores; the first one is the one to minimise. Empty without dev data."""
        ...

    def lr_factor(self, parameter: str) -> float:
        """Factor on the learning rate by parameter name."""
        ...

    def export(self, directory: Path) -> None:
        """Writes the model folder for use."""
        ...

    def describe(self, batch: Any) -> list[str]:
        """What a loaded batch holds, for a dry run."""
        ...

    def remarks(self) -> list[str]:
        """What the user should know after an epoch, such as utterances that could not be used."""
        ...


@dataclass
class Trainer:
    """A run: the task, its settings and where it stands.

    Attributes:
        task: What is trained.
        optim: Optimiser and schedule.
        run: Length and precision.
        seed: Seed of torch's generator.
        directory: Run folder.
        log: Called with each line for the user.
    """

    task: Task
    optim: Optim
    run: Run
    seed: int
    directory: Path
    log: Callable[[str], None]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = math.inf
    averaged: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _started: float = 0.0
    _started_at: float = 0.0

    def __post_init__(self) -> None:
        self.device = pick_device(self.run.device)
        self.rank, self.processes = distributed.start(self.device)
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        self.task.module.to(self.device)
        if not any(parameter.requires_grad for parameter in self.task.module.parameters()):
            raise TrainingError("nothing learns, everything is frozen", remedy="set a policy to full or lora")
        self.optimizer = build_optimizer(self.task.module, self.optim, self.task.lr_factor)
        # Processes start from equal weights and go on with random numbers of their own.
        torch.manual_seed(self.seed + self.rank)
        np.random.seed((self.seed + self.rank) % 2**32)  # transformers' masking draws from this generator

    def fit(self) -> None:
        """Trains to the last epoch, then exports `directory/model`.

        Raises:
            TrainingError: The loss is not finite, or a checkpoint cannot be written.
        """
        self._started, self._started_at = time.monotonic(), self._progress(1)
        while self.epoch < self.run.epochs:
            self._run_epoch()
        if self.rank == 0:
            self._export()
        distributed.wait()

    def resume(self) -> None:
        """Continues from the newest undamaged checkpoint.

        Raises:
            TrainingError: There is none, or it belongs to another recipe.
        """
        path, checkpoint, damaged = load_newest(self.directory / "checkpoints")
        for line in damaged:
            self.log(f"warning: {line}")
        load_weights(self.task.module, checkpoint.tensors["model"], where=path)
        restore_optimizer(self.optimizer, self.task.module, checkpoint.tensors["optimizer"])
        _restore_random(checkpoint, self.rank)
        state = checkpoint.state
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.best, self.averaged = state["best"] if state["best"] is not None else math.inf, state["averaged"]
        self.average = {name: t.to(self.device) for name, t in checkpoint.tensors.get("average", {}).items()}
        self._sums = state["sums"]
        self.log(f"resumed from {path.name}: epoch {self.epoch + 1}, batch {self.batch}")

    def _run_epoch(self) -> None:
        batches = self.task.batches(self.epoch)
        self.task.module.train()
        accumulated = micro = 0
        for index, batch in self._prefetch(batches):
            moment = Moment(self.epoch, index, self._progress(len(batches), index))
            if batch is not None:
                accumulated += self._backward(batch, moment)
            micro += 1
            last = index + self.processes >= len(batches)
            if micro == self.optim.accumulate or last:
                updated = self._update(moment, accumulated, batch)
                accumulated = micro = 0
                if updated and self.step % self.run.log_every == 0:
                    self._log_step(moment)
                if updated and self.step % self.run.checkpoint_every == 0 and not last:
                    self.batch = index + self.processes
                    self._save()
        self.epoch, self.batch = self.epoch + 1, 0
        for remark in self.task.remarks():
            self.log(f"warning: {remark}")
        self._end_epoch()

    def _backward(self, batch: Any, moment: Moment) -> int:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bfloat16"):
            loss, parts = self.task.loss(batch, moment)
        if not torch.isfinite(loss):
            raise _not_finite(f"the loss is {loss.item()}", moment, batch)
        loss.backward()
        for name, value in {"loss": loss.item(), **parts}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["batches"] = self._sums.get("batches", 0.0) + 1
        return 1

    def _update(self, moment: Moment, accumulated: int, batch: Any) -> bool:
        """Moves the weights; False if there was nothing to learn from."""
        if distributed.average_gradients(self.task.module.parameters(), accumulated) == 0:
            return False
        norm = nn.utils.clip_grad_norm_(self.task.module.parameters(), self.optim.max_grad_norm)
        if not torch.isfinite(norm):
            raise _not_finite(f"the gradient is {norm.item()}", moment, batch)
        self._sums["grad_norm"] = self._sums.get("grad_norm", 0.0) + float(norm) * accumulated
        set_lr(self.optimizer, lr_scale(self.optim.schedule, moment.progress))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return True

    def _end_epoch(self) -> None:
        distributed.average_buffers(self.task.module)
        remaining = self.run.epochs - self.epoch
        if remaining < self.run.average_last > 1:
            self._add_to_average()
        scores: dict[str, float] = {}
        if self.rank == 0 and (self.epoch % self.run.evaluate_every == 0 or remaining == 0):
            self.task.module.eval()
            scores = self.task.evaluate()
        if scores:
            self._write_metrics({"epoch": self.epoch, "step": self.step, **{f"dev_{k}": v for k, v in scores.items()}})
            shown = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.log(f"epoch {self.epoch}/{self.run.epochs} dev: {shown}")
            score = next(iter(scores.values()))
            if score < self.best and self.run.average_last == 1:
                self.best = score
                self.average, self.averaged = {}, 0
                self._add_to_average()
        self._save()

    def _add_to_average(self) -> None:
        # With average_last 1 this holds the weights of the best dev score, the "average" of one.
        self.averaged += 1
        for name, value in weights(self.task.module).items():
            if name not in self.average:
                self.average[name] = value.detach().clone()
            elif value.is_floating_point():
                self.average[name] += (value - self.average[name]) / self.averaged

    def _export(self) -> None:
        if self.average:
            load_weights(self.task.module, self.average, where=self.directory)
            self.task.module.eval()
            scores = self.task.evaluate()
            if scores:
                self._write_metrics({"step": self.step, **{f"final_{k}": v for k, v in scores.items()}})
                self.log("final model, dev: " + " ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        self.task.export(self.directory / "model")
        self.log(f"model written to {self.directory / 'model'}")

    def _prefetch(self, batches: list[list[int]]) -> Iterator[tuple[int, Any]]:
        """Batches from where the epoch stands, each read while the one before is computed."""
        with ThreadPoolExecutor(1) as reader:
            coming: Future[Any] | None = None
            for index in range(self.batch, len(batches), self.processes):
                future = coming or reader.submit(self.task.load, self._share(batches, index), self.epoch)
                if index + self.processes < len(batches):
                    following = self._share(batches, index + self.processes)
                    coming = reader.submit(self.task.load, following, self.epoch)
                yield index, future.result()

    def _share(self, batches: list[list[int]], index: int) -> list[int]:
        # At the end of an epoch the first batches fill the gap, so that every process has one.
        return batches[(index + self.rank) % len(batches)]

    def _progress(self, num_batches: int, index: int = 0) -> float:
        return (self.epoch + index / num_batches) / self.run.epochs

    def _log_step(self, moment: Moment) -> None:
        count = self._sums.pop("batches", 1.0)
        means = {name: value / count for name, value in self._sums.items()}
        self._sums = {}
        elapsed = time.monotonic() - self._started
        done = max(moment.progress - self._started_at, 1e-6)
        left = elapsed / done * (1.0 - moment.progress)
        lr = self.optimizer.param_groups[0]["lr"]
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        if self.rank:
            return
        self.log(f"epoch {self.epoch + 1} step {self.step} {shown} lr {lr:.2e} left {left / 60:.0f} min")
        epoch = round(moment.progress * self.run.epochs, 4)
        self._write_metrics({"epoch": epoch, "step": self.step, **means, "lr": lr})

    def _write_metrics(self, row: dict[str, Any]) -> None:
        if self.rank:
            return
        row = {**row, "time": round(time.time(), 1)}
        with (self.directory / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")

    def _save(self) -> None:
        random_states = distributed.gather((torch_random_state(), _numpy_state()))
        if self.rank == 0:
            self._write_checkpoint(random_states)
        distributed.wait()

    def _write_checkpoint(self, random_states: list[tuple[dict[str, Tensor], list[Any]]]) -> None:
        tensors = {
            "model": weights(self.task.module),
            "optimizer": optimizer_tensors(self.optimizer, self.task.module),
            "random": {f"{key}{rank}": value for rank, (s, _) in enumerate(random_states) for key, value in s.items()},
        }
        if self.average:
            tensors["average"] = self.average
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "best": self.best if math.isfinite(self.best) else None,
            "averaged": self.averaged,
            "sums": self._sums,
            "numpy": [state for _, state in random_states],
        }
        checkpoint = Checkpoint(tensors, state)
        save_checkpoint(self.directory / "checkpoints", self.step, checkpoint, keep=self.run.keep_checkpoints)


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module by name, shared ones once."""
    seen: set[int] = set()
    result = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            result[name] = tensor
    return result


def load_weights(module: nn.Module, tensors: dict[str, Tensor], *, where: Path) -> None:
    """Puts `weights` back.

    Raises:
        TrainingError: Names or shapes do not match.
    """
    expected = weights(module)
    wrong = sorted(set(expected) ^ set(tensors)) or [n for n in expected if expected[n].shape != tensors[n].shape]
    if wrong:
        raise TrainingError(
            f"the weights do not fit the model at {wrong[0]}", where=where, remedy="use the same recipe"
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def _not_finite(what: str, moment: Moment, batch: Any) -> TrainingError:
    """The error for a loss or gradient that would spoil the weights; names the batch and its utterances."""
    names = list(getattr(batch, "utt_ids", ()))
    shown = f" ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})" if names else ""
    return TrainingError(
        what,
        where=f"epoch {moment.epoch + 1}, batch {moment.batch}{shown}",
        remedy="lower optim.lr or look at the utterances of this batch; the last checkpoint is sound, see --resume",
    )


def _restore_random(checkpoint: Checkpoint, rank: int) -> None:
    tensors, numpy_states = checkpoint.tensors["random"], checkpoint.state["numpy"]
    if rank < len(numpy_states):  # more processes than before start afresh
        restore_random_state({key.removesuffix(str(rank)): t for key, t in tensors.items() if key.endswith(str(rank))})
        _restore_numpy(numpy_states[rank])


def _numpy_state() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [kind, [int(key) for key in np.asarray(keys)], *rest]


def _restore_numpy(state: list[Any]) -> None:
    np.random.set_state((state[0], np.array(state[1], dtype=np.uint32), *state[2:]))
