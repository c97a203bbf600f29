"""R1: `kill -9` at random moments of training and saving; every run can be resumed and ends as if nothing had happened.

Beside it, the same kills for the stock trainer of transformers.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.processes import start_module
from tests.score.row import Row
from tests.tiny import save_tiny_llm
from tests.train.helpers import speech_llm_recipe, write_corpus, write_recipe

PATIENCE = 300.0
RUN = {"epochs": 150, "checkpoint_every": 1, "log_every": 1, "evaluate_every": 1000, "keep_checkpoints": 2}


@dataclass(frozen=True)
class Killing:
    """One life of a process that is killed.

    Attributes:
        early: Kill it so many seconds after its start; or, if None,
        after: so many seconds after its training began.
    """

    early: float | None
    after: float


def plan(count: int, seed: int) -> list[Killing]:
    """Kills at random moments, most of them while training and saving go on."""
    generator = random.Random(seed)  # noqa: S311
    return [
        Killing(generator.uniform(0.0, 4.0) if generator.random() < 0.15 else None, generator.uniform(0.0, 1.5))
        for _ in range(count)
    ]


def count_kills(root: Path, mode: str, killings: list[Killing], *, epochs: int = RUN["epochs"]) -> Row:
    """Kills runs of a tiny speech LLM (`full` or `lora`) and compares where they end."""
    write_corpus(root / "corpus")
    recipe = write_recipe(root / "recipe.yaml", root / "corpus", _recipe(root, mode, epochs))
    straight = root / "straight"
    _finish(_command(recipe, straight, resume=False), straight)
    expected = _digest(straight)

    runs = kept = 0
    waiting = list(killings)
    while waiting:
        runs += 1
        folder = root / f"killed{runs}"
        survived = 0
        while waiting and not (folder / "model").is_dir():
            if _live(_command(recipe, folder, resume=folder.is_dir()), waiting[0], folder / "log.txt"):
                waiting.pop(0)
                survived += 1
        _finish(_command(recipe, folder, resume=True), folder)
        kept += survived if _digest(folder) == expected else 0
        shutil.rmtree(folder)
    return Row(
        f"R1 {mode}",
        "after a kill -9 the run resumes, and its final weights are those of an uninterrupted run (SHA-256)",
        kept,
        len(killings),
        (f"{runs} runs of {epochs} epochs, a checkpoint after every step",),
    )


def count_stock_kills(root: Path, killings: list[Killing]) -> str:
    """How the stock trainer fares: a tiny model, a checkpoint after every step, resumed as its manual says."""
    folder = root / "stock"
    command = ["tests.score.stock_trainer", str(folder)]
    stock = "stock Trainer of transformers on the same kills"
    for number, killing in enumerate(killings, start=1):
        try:
            if not _live(command, killing, folder / "log.txt"):
                return f"{stock}: finished before kill {number}"
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["no message"])[-1].replace(f"{root}/", "")
            return f"{stock}: stuck after {number - 1} ({reason[:160]})"
    return f"{stock}: resumed after all {len(killings)}"


def _recipe(root: Path, mode: str, epochs: int) -> dict[str, Any]:
    run = {**RUN, "epochs": epochs}
    if mode == "full":
        return speech_llm_recipe(run=run)
    if not (root / "llm").is_dir():
        save_tiny_llm(root / "llm", "llama")
    return speech_llm_recipe(
        units={"kind": "llm", "text_form": "as_is"},
        llm={"init": str(root / "llm"), "policy": "lora", "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1}},
        run=run,
    )


def _command(recipe: Path, folder: Path, *, resume: bool) -> list[str]:
    command = ["kikitori", "train", str(recipe), "-o", str(folder)]
    return [*command, "--resume"] if resume else command


def _live(command: list[str], killing: Killing, log: Path) -> bool:
    """Runs a command until it is killed as planned; False if it finished before. It logs its steps.

    Raises:
        CalledProcessError: It ended by itself, badly.
    """
    logged = log.stat().st_size if log.is_file() else 0
    errors = log.parent.with_suffix(".errors")
    process = start_module(command, errors)
    started = time.monotonic()
    if killing.early is not None:
        process.join(killing.early)
    else:
        while process.exitcode is None and not _steps(log, logged) and time.monotonic() - started < PATIENCE:
            time.sleep(0.02)
        process.join(killing.after)
    process.kill()
    return not _ended_well(process, command, errors, killed=True)


def _steps(log: Path, offset: int) -> bool:
    """Whether the log tells of a step behind the offset."""
    return log.is_file() and b" step " in log.read_bytes()[offset:]


def _finish(command: list[str], folder: Path) -> None:
    errors = folder.with_suffix(".errors")
    _ended_well(start_module(command, errors), command, errors)


def _ended_well(process: BaseProcess, command: list[str], errors: Path, *, killed: bool = False) -> bool:
    """Waits for the end; False if the process was killed, as it may be."""
    process.join(900)
    if process.exitcode == -signal.SIGKILL and killed:
        return False
    if process.exitcode != 0:
        raise subprocess.CalledProcessError(process.exitcode or 1, command, stderr=errors.read_text())
    return True


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
