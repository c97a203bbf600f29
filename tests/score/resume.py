"""R5: a run stopped anywhere and resumed is the uninterrupted run, bit for bit, with one process and with two."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from kikitori.train.run import train
from kikitori.train.tasks.speech import AcousticTask
from tests.score.row import Row
from tests.train.helpers import AUGMENT, Interruption, acoustic_recipe, checkpoint_contents, write_corpus, write_recipe

RECIPE = acoustic_recipe(
    augment=AUGMENT,
    data={"max_batch_size": 1},
    optim={"accumulate": 2},
    run={"epochs": 3, "checkpoint_every": 1, "log_every": 1, "average_last": 2},
)
STOPS = {1: (2, 3, 5, 6, 7, 8, 14, 19), 2: (2, 3, 4, 9)}
"""Batches that a process computes before it dies. An epoch has 7; a step has 2 in each process, the last one less."""


def count_resumes(root: Path, *, stops: dict[int, tuple[int, ...]] = STOPS) -> Row:
    """Stops runs after so many batches, by number of processes, and compares weights, metrics and data order."""
    write_corpus(root / "corpus")
    write_recipe(root / "recipe.yaml", root / "corpus", RECIPE)
    kept = tries = 0
    for processes, places in stops.items():
        folder = root / str(processes)
        jobs = [(folder / "straight", None), *((folder / f"stopped{after}", after) for after in places)]
        if processes == 1:
            for job in jobs:
                _train(root / "recipe.yaml", *job)
        else:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            multiprocessing.spawn(_process, (processes, port, root / "recipe.yaml", jobs), nprocs=processes)
        for run, _ in jobs[1:]:
            tries += 1
            kept += _same(folder / "straight", run, processes)
    return Row(
        "R5",
        "a run stopped anywhere and resumed ends bit for bit like an uninterrupted one: weights, metrics, data order",
        kept,
        tries,
        ("; ".join(f"{len(places)} stops with {processes} process(es)" for processes, places in stops.items()),),
    )


def _process(rank: int, processes: int, port: int, recipe: Path, jobs: list[tuple[Path, int | None]]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(processes), RANK=str(rank))
    torch.set_num_threads(1)
    for folder, after in jobs:
        _train(recipe, folder, after)


def _train(recipe: Path, folder: Path, after: int | None) -> None:
    """Trains; with `after`, dies before the batch after so many, and resumes."""
    order: list[Any] = []
    real = AcousticTask.loss

    def loss(self: AcousticTask, batch: Any, position: Any) -> Any:
        if after is not None and len(order) == after:
            raise Interruption
        order.append([position.epoch, position.batch, list(batch.utt_ids)])
        return real(self, batch, position)

    AcousticTask.loss = loss  # type: ignore[method-assign]
    try:
        train(recipe, folder)
    except Interruption:
        died, after = len(order), None
        train(recipe, folder, resume=True)
        order = _joined(order[:died], order[died:])
    finally:
        AcousticTask.loss = real  # type: ignore[method-assign]
    (folder / f"order{os.environ.get('RANK', '0')}.json").write_text(json.dumps(order))


def _joined(before: list[Any], after: list[Any]) -> list[Any]:
    """The order of the batches that counted: those after the last checkpoint were computed again."""
    return [*before[: before.index(after[0])], *after] if after[0] in before else [*before, *after]


def _same(straight: Path, run: Path, processes: int) -> bool:
    tensors = [checkpoint_contents(folder) for folder in (straight, run)]
    equal = tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][n], tensors[1][n]) for n in tensors[0]
    )
    files = ["model/model.safetensors", *(f"order{rank}.json" for rank in range(processes))]
    equal = equal and all((straight / name).read_bytes() == (run / name).read_bytes() for name in files)
    return equal and _metrics(straight) == _metrics(run)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in {"time", "time_shares"}} for row in rows]
