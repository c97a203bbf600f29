"""Child processes of tests, forked from one that has imported already what takes seconds to import."""

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context, set_forkserver_preload
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts a function of a module in a child; an `exitcode` below zero is the signal that ended it."""
    set_forkserver_preload(["kikitori.loading", "kikitori.train.run", "peft"])
    child = get_context("forkserver").Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def start_module(command: Sequence[str], errors: Path) -> BaseProcess:
    """Starts a module with arguments as `python -m` does, in the root of the checkout; `errors` gets what it prints."""
    return start(run_module, list(command), errors)


def run_module(command: list[str], errors: Path) -> None:
    """Runs a module in this process as `python -m` does."""
    with errors.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(ROOT)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
