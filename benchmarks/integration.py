"""The rows of docs/integration.md: trains a recipe, measures it on dev and test, and writes the table of all runs.

python benchmarks/integration.py train base bridge_conv ...     (recipes/integration/, into runs/integration/)
python benchmarks/integration.py table base bridge_conv ...

A finished row is not trained again; one that broke off is resumed.
"""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

RECIPES, RUNS = Path("recipes/integration"), Path("runs/integration")
MANIFEST = "../shared/speech/librispeech_clean_5/manifest.jsonl"
PROCESSES = 2
SPLITS = ("dev", "test")


def train(name: str) -> None:
    run = RUNS / name
    if not (run / "model").is_dir():
        torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(PROCESSES)]
        resume = ["--resume"] if run.is_dir() else []
        call(*torchrun, "-m", "kikitori", "train", str(RECIPES / f"{name}.yaml"), "-o", str(run), *resume)
    for split in SPLITS:
        if not (run / split / "report.json").is_file():
            options = ["--model", str(run / "model"), "--data", MANIFEST, "--split", split, "--decoding", "greedy"]
            call(sys.executable, "-m", "kikitori", "evaluate", *options, "-o", str(run / split))


def call(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def table(names: list[str]) -> None:
    print("| recipe | WER dev | WER test (95 %) | CTC WER dev | text loss | positions/s | s/step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        run = RUNS / name
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        reports = {split: json.loads((run / split / "report.json").read_text()) for split in SPLITS}
        low, high = reports["test"]["wer_ci"]
        print(
            f"| `{name}` | {reports['dev']['wer']:.3f} | {reports['test']['wer']:.3f} ({low:.3f}-{high:.3f}) "
            f"| {last(metrics, 'final_wer_ctc_greedy'):.3f} | {last(metrics, 'text'):.2f} "
            f"| {reports['test']['positions_per_second']:.1f} | {seconds_per_step(metrics):.2f} |"
        )


def last(metrics: list[dict[str, Any]], key: str) -> float:
    return float([row[key] for row in metrics if key in row][-1])


def seconds_per_step(metrics: list[dict[str, Any]]) -> float:
    rows = [row for row in metrics if "loss" in row]
    return median((b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in pairwise(rows))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        for recipe in sys.argv[2:]:
            train(recipe)
    else:
        table(sys.argv[2:])
