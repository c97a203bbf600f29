"""`make score`: counts rows in full and writes them to SCORECARD.md; `python -m tests.score R9 R14` these alone."""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path

from tests.score.again import count_repeats
from tests.score.attacks import count_attacks
from tests.score.damage import count_damage
from tests.score.faults import count_faults
from tests.score.fuzz import count_mutants
from tests.score.jobs import count_killed_jobs
from tests.score.kills import count_kills, count_stock_kills, plan
from tests.score.length import count_long
from tests.score.nonfinite import count_nonfinite
from tests.score.page import page
from tests.score.ranks import count_lost_processes
from tests.score.resume import count_resumes
from tests.score.row import Row
from tests.score.suites import count_tests

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
    "R9": lambda root: count_mutants(root, each=1000),
    "R10": lambda root: count_long(root, hours=3.0),
    "R11": lambda root: count_killed_jobs(root, files=300, kills=30),
    "R12": lambda root: count_tests(
        root,
        "R12",
        "the official OpenAI client reads every answer and stream of the server; live text is as described",
        *("tests/server/test_openai_client.py", "tests/server/test_live.py"),
    ),
    "R14": lambda root: count_tests(
        root,
        "R14",
        "wrong keys, foreign pages, bodies too large, slow or malformed, a full queue, a decoder that dies: the answer"
        " that docs/server.md names, and nothing of it in logs",
        *("tests/server/test_security.py", "tests/server/test_limits.py", "tests/server/test_uploads.py"),
    ),
    "R15": lambda root: count_tests(
        root,
        "R15",
        "the page in Chromium: files, microphone, keyboard, errors; markup in texts stays text, and nothing is logged",
        "tests/server/test_page.py",
    ),
    "R16": count_repeats,
    "R19": lambda root: count_lost_processes(root, kills=4),
    "R20": lambda root: count_tests(
        root,
        "R20",
        "workers (Ray) and shards write the files of one process; one that is killed loses and doubles nothing",
        *("tests/engine/test_pool.py", "tests/engine/test_ray.py", "tests/workflows/sharing/test_shards.py"),
    ),
}


def main(wanted: Sequence[str]) -> int:
    """Counts the wanted rows, all by default; the others stay in the file as they were."""
    counted = [_counted(count) for name, count in ROWS.items() if not wanted or name.split()[0] in wanted]
    stock = ""
    if not wanted or "R1" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            stock = count_stock_kills(Path(folder), plan(KILLS, seed=1))
        print(stock, flush=True)
    FILE.write_text(page(FILE.read_text(encoding="utf-8"), counted, [*ROWS], stock), encoding="utf-8")
    return 0 if all(row.passed for row in counted) else 1


def _counted(count: Callable[[Path], Row]) -> Row:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # where runs log
        row = count(Path(folder))
    seconds = time.monotonic() - started
    print(f"{row.name}: {row.kept}/{row.tries} in {seconds:.0f} s. {' '.join(row.details)}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
