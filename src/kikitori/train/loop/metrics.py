"""The numbers of a run: means of losses between lines of the log, dev scores, and `metrics.jsonl` that keeps them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kikitori.io.files import append_text, write_text
from kikitori.train.parallel.processes import gather

METRICS = "metrics.jsonl"
FINAL, DEV = "final_", "dev_"


@dataclass
class Metrics:
    """What a run measures.

    Attributes:
        writes: Whether this process writes.
        sums: Losses and gradient norms summed since the last line, with the number of batches.
    """

    directory: Path
    log: Callable[[str], None]
    writes: bool = True
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, float], batches: int = 0) -> None:
        """Adds the losses of a batch, or a value that belongs to batches which were added."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if batches:
            self.sums["batches"] = self.sums.get("batches", 0.0) + batches

    def restore(self, sums: Sequence[Mapping[str, float]], rank: int, processes: int) -> None:
        """Goes on from the sums of the processes of a checkpoint; other numbers of them give all to the first one."""
        if processes == len(sums):
            self.sums = dict(sums[rank])
        else:
            self.sums = _added(sums) if rank == 0 else {}

    def training(self, epoch: int, passes: float, step: int, lr: float, left: str, shares: Mapping[str, float]) -> None:
        """Logs the means since the last line, over the batches of all processes; all of them come here.

        `passes` are epochs done, `left` is what is said of the time left, `shares` is where the time went.
        """
        sums, self.sums = _added(gather(self.sums)), {}
        if not self.writes:
            return
        count = sums.pop("batches", 1.0)
        means = {name: value / count for name, value in sums.items()}
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        spent = " ".join(f"{name} {shares.get(name, 0.0):.0%}" for name in ("data", "host"))
        self.log(f"epoch {epoch} step {step} {shown} lr {lr:.2e} {spent}{left}")
        self._write({"epoch": round(passes, 4), "step": step, **means, "lr": lr, "time_shares": dict(shares)})

    def dev(self, epoch: int, epochs: int, step: int, scores: Mapping[str, float]) -> None:
        """Logs dev scores after an epoch (from 1)."""
        self._write({"epoch": epoch, "step": step, **{f"{DEV}{name}": value for name, value in scores.items()}})
        self.log(f"epoch {epoch}/{epochs} dev: {_shown(scores)}")

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        """Logs the dev scores of what is exported."""
        self._write({"step": step, **{f"{FINAL}{name}": value for name, value in scores.items()}})
        self.log(f"final model, dev: {_shown(scores)}")

    def rewind(self, step: int) -> None:
        """Drops what a killed run wrote after the step from which this one goes on; it will be written again."""
        path = self.directory / METRICS
        if not self.writes or not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        write_text(path, "".join(f"{line}\n" for line in lines if _written_by(line, step)))

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.writes:
            append_text(self.directory / METRICS, json.dumps({**row, "time": round(time.time(), 1)}) + "\n")


def exported_scores(run: Path) -> dict[str, float]:
    """The dev scores of what a run folder exports, by name: of its last evaluation; none without dev data."""
    path = run / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for row in map(json.loads, reversed(lines)):
        for prefix in (FINAL, DEV):
            if scores := {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}:
                return scores
    return {}


def _added(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums of several processes, by name."""
    added: dict[str, float] = {}
    for each in sums:
        for name, value in each.items():
            added[name] = added.get(name, 0.0) + value
    return added


def _shown(scores: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _written_by(line: str, step: int) -> bool:
    """Whether a line of the metrics is whole and was written by this step, before the export."""
    try:
        row = json.loads(line)
    except ValueError:
        return False  # the run was killed while it wrote
    return bool(row["step"] <= step) and not any(name.startswith(FINAL) for name in row)
