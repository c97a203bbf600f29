"""R19: one of two processes that train together is killed; the other ends in one line, and the run resumes exactly."""

import hashlib
import os
import random
import shutil
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from tests.processes import run_module, start
from tests.score.row import Row
from tests.train.helpers import PARAKEET, speech_llm_recipe, write_corpus, write_recipe

SHARDING = ("none", "fsdp")
PATIENCE = 120.0
TOLD = "another process of the run has ended"


def count_lost_processes(root: Path, *, kills: int, epochs: int = 12) -> Row:
    """Kills either process at random moments of training and saving, with copies of the model and with pieces."""
    write_corpus(root / "corpus")
    draw = random.Random(1)  # noqa: S311
    kept = tries = told = 0
    for sharding in SHARDING:
        values = speech_llm_recipe(
            encoder={"config": {**PARAKEET, "layerdrop": 0.0}},
            run={"epochs": epochs, "checkpoint_every": 1, "log_every": 1, "evaluate_every": 1000, "sharding": sharding},
        )
        recipe = write_recipe(root / f"{sharding}.yaml", root / "corpus", values)
        _finish(_start(recipe, root / sharding, resume=False))
        folder, hits, clear = root / f"{sharding}_killed", 0, 0
        while hits < kills and not (folder / "model").is_dir():
            pair = _start(recipe, folder, resume=folder.is_dir())
            if _kill(pair, draw.randrange(2), folder / "log.txt", draw.uniform(0.0, 0.4)):
                hits += 1
                pair[0].join(PATIENCE)
                pair[1].join(PATIENCE)
                clear += any(TOLD in _errors(folder, rank).read_text() for rank in range(2))
        _finish(_start(recipe, folder, resume=True))
        tries, told = tries + hits, told + clear
        kept += clear if _digest(folder) == _digest(root / sharding) else 0
        shutil.rmtree(folder)
    return Row(
        "R19",
        "one of two processes is killed (DDP, FSDP2): the other says so in a line and ends; resumed, the run ends with"
        " the weights of an uninterrupted one (SHA-256)",
        kept,
        tries,
        (f"the other process said so {told} times of {tries}",),
    )


def _start(recipe: Path, folder: Path, *, resume: bool) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["kikitori", "train", str(recipe), "-o", str(folder), *(["--resume"] if resume else [])]
    return [start(_live, rank, port, command, _errors(folder, rank)) for rank in range(2)]


def _live(rank: int, port: int, command: list[str], errors: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank))
    torch.set_num_threads(1)
    run_module(command, errors)


def _kill(pair: list[BaseProcess], rank: int, log: Path, after: float) -> bool:
    """Kills a process so long after training began; False if both have ended before."""
    logged = log.stat().st_size if log.is_file() else 0
    started = time.monotonic()
    while not _steps(log, logged) and pair[rank].exitcode is None and time.monotonic() - started < PATIENCE:
        time.sleep(0.02)
    pair[rank].join(after)
    pair[rank].kill()
    pair[rank].join()
    return pair[rank].exitcode != 0


def _steps(log: Path, offset: int) -> bool:
    return log.is_file() and b" step " in log.read_bytes()[offset:]


def _errors(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}{rank}.errors")


def _finish(pair: list[BaseProcess]) -> None:
    for each in pair:
        each.join(600)
    if [each.exitcode for each in pair] != [0, 0]:
        raise RuntimeError("the run did not end well")


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
