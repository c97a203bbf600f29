"""`make score`: counts every row in full and writes SCORECARD.md."""

import io
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path

from kikitori.train.loop.provenance import environment
from tests.score.attacks import count_attacks
from tests.score.damage import count_damage
from tests.score.faults import count_faults
from tests.score.jobs import count_killed_jobs
from tests.score.kills import count_kills, count_stock_kills, plan
from tests.score.nonfinite import count_nonfinite
from tests.score.resume import count_resumes
from tests.score.row import Row

FILE = Path(__file__).parents[2] / "SCORECARD.md"
KILLS = 25
ROWS: dict[str, Callable[[Path], Row]] = {
    "R1 full": lambda root: count_kills(root, "full", plan(KILLS, seed=1)),
    "R1 lora": lambda root: count_kills(root, "lora", plan(KILLS, seed=2)),
    "R2": count_damage,
    "R3": count_faults,
    "R4": lambda root: count_nonfinite(root, positions=20),
    "R5": count_resumes,
    "R8": count_attacks,
    "R11": lambda root: count_killed_jobs(root, files=300, kills=30),
}


def main(wanted: Sequence[str]) -> int:
    """Counts the wanted rows (all by default); only a full count is written to the file."""
    counted = [_counted(count) for name, count in ROWS.items() if not wanted or name.split()[0] in wanted]
    stock = ""
    if not wanted or "R1" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            stock = count_stock_kills(Path(folder), plan(KILLS, seed=1))
        print(stock, flush=True)
    if not wanted:
        FILE.write_text(_page(counted, stock), encoding="utf-8")
    return 0 if all(row.passed for row in counted) else 1


def _counted(count: Callable[[Path], Row]) -> Row:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # where runs log
        row = count(Path(folder))
    seconds = time.monotonic() - started
    print(f"{row.name}: {row.kept}/{row.tries} in {seconds:.0f} s. {' '.join(row.details)}", flush=True)
    return row


def _page(counted: Sequence[Row], stock: str) -> str:
    found = environment()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Scorecard",
        "",
        "What [docs/reliability.md](docs/reliability.md) promises, counted. Made by `make score`; a short form of each",
        "row is part of `make test`.",
        "",
        "| row | promise | held | tries |",
        "| --- | --- | --- | --- |",
        *(f"| {row.name} | {row.promise} | {_count(row)} | {row.tries} |" for row in counted),
        "",
        *(f"* {row.name}: {detail}" for row in counted for detail in row.details),
        f"* {stock}",
        "",
        f"Measured {time.strftime('%Y-%m-%d')} with Python {found['python']} on {os.cpu_count()} cores"
        f" ({platform.machine()}, {platform.system()}), no GPU: {versions}.",
        "",
    ]
    return "\n".join(lines)


def _count(row: Row) -> str:
    return str(row.kept) if row.passed else f"{row.kept} FAILED"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
