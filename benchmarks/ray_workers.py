"""Two workers of Ray against one on the same recordings, one thread each: `kikitori transcribe --engine ray`.

python benchmarks/ray_workers.py MANIFEST [--split test] [--files 116] [--model tiny-en] [--rounds 1]

Needs `ray` and a machine with two idle cores. Seconds are those of the clock; what a command takes for the shortest
recordings, one for each worker, is its start (Ray, the model in each process), which is told apart. Texts of both have
to be equal.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from kikitori.data.manifest import read_manifest

WORKERS = (1, 2)


def transcribe(files: list[Path], model: str, workers: int) -> tuple[float, str]:
    """Seconds of the command, and its lines."""
    command = [sys.executable, "-m", "kikitori", "transcribe", *map(str, files), "--model", model, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--engine", "ray", "--workers", str(workers)],
        env=environment,
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--files", type=int, default=116)
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    rows = read_manifest(given.manifest, split=given.split).utterances[: given.files]
    files = [row.audio_filepath.resolve() for row in rows]
    shortest = [row.audio_filepath.resolve() for row in sorted(rows, key=lambda row: row.duration)]
    print(f"{len(files)} recordings, {sum(row.duration for row in rows):.0f} s", flush=True)
    starts: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    wholes: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    texts = set()
    for _ in range(given.rounds):
        for workers in WORKERS:
            starts[workers].append(transcribe(shortest[:workers], given.model, workers)[0])
            seconds, text = transcribe(files, given.model, workers)
            wholes[workers].append(seconds)
            texts.add(text)
            line = f"{workers} worker(s): {seconds:.1f} s, of which {starts[workers][-1]:.1f} s to start"
            print(line, file=sys.stderr, flush=True)
    if len(texts) > 1:
        sys.exit("the texts differ")
    start, whole = ({w: median(found[w]) for w in WORKERS} for found in (starts, wholes))
    work = {workers: whole[workers] - start[workers] for workers in WORKERS}
    print(f"recognition: {work[1]:.1f} s and {work[2]:.1f} s, {work[1] / work[2]:.2f} times as fast with two workers")
    print(f"whole command: {whole[1]:.1f} s and {whole[2]:.1f} s, {whole[1] / whole[2]:.2f} times as fast")


if __name__ == "__main__":
    main()
