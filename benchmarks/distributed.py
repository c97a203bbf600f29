"""Training by two processes of one thread each, in turns by several checkouts of kikitori: time and memory of a step.

git worktree add ../before COMMIT
OMP_NUM_THREADS=1 python benchmarks/distributed.py before=../before now=.

A language model of 64 million parameters on made-up text, AdamW, no evaluation. Seconds are medians over rounds of the
mean step behind the first two; memory is the most that one process held (resident, libraries included).
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

ROUNDS, PROCESSES, STEPS, SKIPPED = 3, 2, 8, 2
SIZE = {"hidden_size": 640, "intermediate_size": 1920, "num_hidden_layers": 12, "num_attention_heads": 10}
LLAMA = {"model_type": "llama", **SIZE, "num_key_value_heads": 10, "max_position_embeddings": 512}
LABELS = 128
"""Of a batch: little to compute for what has to be sent, as with many processes."""


def main() -> None:
    sides = dict(side.split("=", 1) for side in sys.argv[1:])
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, checkout in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(Path(checkout).resolve(), Path(folder)))
            print(name, *(f"{value:.2f}" for value in found[name][-1]), file=sys.stderr, flush=True)
    first = next(iter(found.values()))
    base = [median(values) for values in zip(*first, strict=True)]
    for name, rounds in found.items():
        seconds, processor, megabytes = (median(values) for values in zip(*rounds, strict=True))
        print(
            f"{name:10} {seconds:.2f} s a step, {processor:.1f} s of processor time a run, {megabytes:,.0f} MB;"
            f" the first side takes {base[0] / seconds:.2f} times as long, {base[2] / megabytes:.2f} times the memory"
        )


def run(checkout: Path, folder: Path) -> tuple[float, float, float]:
    """Seconds of a step, seconds of processor time in all, and megabytes of the largest process."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(200)]
    lines = [" ".join(draw.choices(words, k=10)) for _ in range(4 * STEPS)]
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines))
    recipe = {
        "task": "language_model",
        "data_root": str(folder),
        "units": {"kind": "characters", "text_form": "en_plain"},
        "text": {"files": ["text.txt"], "batch_labels": LABELS, "dev_lines": 0},
        "llm": {"config": LLAMA},
        "optim": {"lr": 1e-4},
        "run": {"epochs": 1, "device": "cpu", "log_every": 1, "checkpoint_every": 1000},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(PROCESSES)]
    job = [*command, "-m", "kikitori", "train", str(folder / "recipe.yaml"), "-o", str(folder / "run")]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(job, env=environment, stderr=subprocess.PIPE, text=True)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(process.stderr.read() if process.stderr else "it failed")
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    times = [row["time"] for row in rows if "loss" in row]
    step = (times[-1] - times[SKIPPED]) / (len(times) - 1 - SKIPPED)
    return step, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
