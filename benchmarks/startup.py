"""How long a new process takes, wall and CPU time, to import kikitori, to show its help, and to write what is said.

python benchmarks/startup.py [RECORDING]

The first three beside a bare interpreter, in one interleaved run. With a recording `kikitori transcribe --device cpu`,
too: with an empty folder for compiled code, as the first time after installing, and then with that folder.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

ROUNDS, TRANSCRIPTS = 9, 2
KIKITORI = str(Path(sys.executable).with_name("kikitori"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import kikitori": [sys.executable, "-c", "import kikitori"],
    "kikitori --help": [KIKITORI, "--help"],
}


def timed(command: Sequence[str], more: Mapping[str, str] = {}) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **more})
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(timed(command))
    bare = median(wall for wall, _ in times["python -c pass"])
    for name, values in times.items():
        wall, cpu = (median(each) for each in zip(*values, strict=True))
        print(f"{name:18} median {wall:.3f} s   CPU {cpu:.3f} s   ratio to a bare interpreter {wall / bare:.1f}")
    if recording := sys.argv[1:2]:
        command = [KIKITORI, "transcribe", "--device", "cpu", *recording]
        with tempfile.TemporaryDirectory() as compiled:
            first, *later = (timed(command, {"NUMBA_CACHE_DIR": compiled}) for _ in range(1 + TRANSCRIPTS))
        for name, (wall, cpu) in {"the first time": first, "later, the fastest": min(later)}.items():
            print(f"kikitori transcribe, {name}: {wall:.1f} s, CPU {cpu:.1f} s")


if __name__ == "__main__":
    main()
