"""R16: a recipe that is trained twice, in processes of their own, gives the same files, and so does an evaluation."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.processes import ROOT
from tests.score.row import Row
from tests.train.helpers import (
    AUGMENT,
    acoustic_recipe,
    masked_recipe,
    speech_llm_recipe,
    text_recipe,
    write_corpus,
    write_recipe,
)

RUN = {"log_every": 1, "average_last": 2}
RECIPES: Mapping[str, dict[str, Any]] = {
    "acoustic_model": acoustic_recipe(augment=AUGMENT, run=RUN),
    "speech_llm": speech_llm_recipe(augment=AUGMENT, run=RUN),
    "language_model": text_recipe(run=RUN),
    "masked_prediction": masked_recipe(augment=AUGMENT, run=RUN),
}
HEARD = ("acoustic_model", "speech_llm")
TIMES = {"time", "time_shares"}


def count_repeats(root: Path, *, names: Sequence[str] = (*RECIPES,)) -> Row:
    """Trains each recipe twice, evaluates what recognises, and compares."""
    write_corpus(root / "corpus")
    kept = tries = 0
    for name in names:
        recipe = write_recipe(root / f"{name}.yaml", root / "corpus", RECIPES[name])
        found = []
        for number in range(2):
            run = root / f"{name}{number}"
            _kikitori(number, "train", recipe, "-o", run)
            found.append([(run / "model" / "model.safetensors").read_bytes(), *_rows(run / "metrics.jsonl")])
            if name in HEARD:
                data = ("--data", root / "corpus" / "manifest.jsonl", "--split", "dev", "--device", "cpu")
                _kikitori(number, "evaluate", "--model", run / "model", *data, "-o", run / "report")
                found[-1] += _rows(run / "report" / "predictions.jsonl")
        tries += 1
        kept += found[0] == found[1]
    return Row(
        "R16",
        "the same recipe in two processes gives the same weights, numbers and predictions, byte for byte but for times",
        kept,
        tries,
        (f"recipes: {', '.join(names)}",),
    )


def _kikitori(seed: int, *arguments: object) -> None:
    """A command in a fresh process, with a seed of its own for the order of sets."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kikitori", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
