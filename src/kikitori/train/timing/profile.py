"""Where the time of a step goes: shares of its parts, and the heaviest operators (torch's profiler).

The parts are named where they are computed, with torch's `record_function`. On a GPU, host and device are told apart:
what a part starts there may end after it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from kikitori.io.files import write_text

PROFILE, TRACE = "profile.txt", "profile.json.gz"
SKIPPED, WARM_UP = 1, 1
"""Steps before: the first allocates, the next warms the profiler up."""
STEP = "ProfilerStep"
PARTS = ("data", "forward", "backward", "update")
INNER = {"forward": ("encoder", "CTC heads", "drafts", "bridge", "LLM")}
"""Parts of a step in their order, and what some of them consist of, for the most part."""
OPERATORS = 12


@contextmanager
def profiled(steps: int, directory: Path, log: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Inside, profiles so many steps after the first two; gives what is to be called after each one.

    Their table goes into `directory/profile.txt` and the log, all their operators into `profile.json.gz` beside it,
    which https://ui.perfetto.dev shows. With no steps nothing is done.
    """
    if not steps:
        yield lambda: None
        return
    written: list[Path] = []

    def write(found: profile) -> None:
        if not (lines := table(found.key_averages())):
            return
        write_text(directory / PROFILE, "".join(f"{line}\n" for line in lines))
        found.export_chrome_trace(str(directory / TRACE))
        for line in lines:
            log(f"profile: {line}")
        written.append(directory / PROFILE)

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    when = schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=steps, repeat=1)
    with profile(activities=activities, schedule=when, on_trace_ready=write) as profiler:
        yield profiler.step
    if not written:
        log(f"warning: the run ended before step {SKIPPED + WARM_UP + 1}; nothing was profiled")


def table(rows: Iterable[Any]) -> list[str]:
    """A table of what torch's profiler has added up: parts by the host's time, operators by the device's if it has one.

    It is empty where no step was profiled to its end.

    Args:
        rows: Its `key_averages`.
    """
    on_host = [row for row in rows if row.device_type.name == "CPU"]
    whole = sum(row.cpu_time_total for row in on_host if row.key.startswith(STEP))
    steps = sum(row.count for row in on_host if row.key == PARTS[-1])
    if not steps:
        return []
    spent = {row.key: row.cpu_time_total / whole for row in on_host if row.is_user_annotation}
    lines = [f"{steps} steps of {whole / steps / 1e6:.3f} s; shares of their time", "part"]
    for part in PARTS:
        lines.append(_line(part, spent.get(part, 0.0)))
        lines += [_line(f"  {inner}", spent[inner]) for inner in INNER.get(part, ()) if inner in spent]
    lines.append(_line("evaluation, checkpoints, other", 1.0 - sum(spent.get(part, 0.0) for part in PARTS)))
    operators = [row for row in on_host if not row.is_user_annotation]
    own = {row.key: row.self_device_time_total for row in operators}
    where = "device"
    if not any(own.values()):
        own, where = {row.key: row.self_cpu_time_total for row in operators}, "host"
    calls = {row.key: row.count for row in operators}
    lines.append(f"operator, its own time on the {where}, calls a step")
    heaviest = sorted(own, key=lambda name: own[name], reverse=True)[:OPERATORS]
    return lines + [f"{_line(name, own[name] / whole)} {calls[name] / steps:7.0f}" for name in heaviest]


def _line(name: str, share: float) -> str:
    return f"{name[:48]:48} {share:6.1%}"
