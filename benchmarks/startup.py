"""How long `import kikitori` and `kikitori --help` take, each beside a bare interpreter, in one interleaved run.

python benchmarks/startup.py
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROUNDS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import kikitori": [sys.executable, "-c", "import kikitori"],
    "kikitori --help": [str(Path(sys.executable).with_name("kikitori")), "--help"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - started)
    bare = median(times["python -c pass"])
    for name, values in times.items():
        print(f"{name:18} median {median(values):.3f} s   ratio to a bare interpreter {median(values) / bare:.1f}")


if __name__ == "__main__":
    main()
