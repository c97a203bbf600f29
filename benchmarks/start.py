"""How long training takes to begin, and in how much memory: from a recipe to its first batch, by rows of the manifest.

python benchmarks/start.py 10000 1000000    # each in a process of its own: CPU seconds, peak memory

The rows are made up, their audio is that of the bundled recordings, and their label units are those of `tiny-en`.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "src/kikitori/samples"
MODEL = Path(__file__).parents[1] / "src/kikitori/models/tiny-en"
WORDS = [f"{first}{last}" for first in "bdfgklmnprstw" for last in ("and", "ell", "in", "oo", "y")]
RECIPE = """
task: speech_llm
data_root: {folder}
data: {{train: [{{path: manifest.jsonl}}], batch_seconds: 80}}
units: {{kind: run, path: {model}}}
encoder: {{config: {{model_type: parakeet_encoder, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
  intermediate_size: 16, subsampling_conv_channels: 4, num_mel_bins: 80}}}}
bridge: {{kind: stack, stride: 2}}
llm: {{config: {{model_type: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1,
  num_attention_heads: 2}}}}
ctc: {{weights: {{1: 0.3}}}}
optim: {{lr: 0.001}}
run: {{epochs: 1, device: cpu}}
"""


def write_manifest(path: Path, count: int) -> None:
    """Rows of 1 to 3 s with two and a half words a second."""
    samples = [str(path) for path in sorted(SAMPLES.glob("*.opus"))]
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            seconds = round(draw.uniform(1.0, 2.5), 2)
            text = " ".join(draw.choices(WORDS, k=round(2.5 * seconds)))
            row = {"audio_filepath": draw.choice(samples), "duration": seconds, "text": text, "id": f"u{number:07}"}
            out.write(json.dumps(row | {"speaker": f"s{number % 1000}"}) + "\n")


def start(recipe: Path) -> None:
    """What a run does before its first step."""
    from kikitori.train.build.task import build_task
    from kikitori.train.loop.provenance import provenance
    from kikitori.train.recipe.recipe import load_recipe

    marks = [time.process_time()]
    read = load_recipe(recipe)
    task = build_task(read, lambda _: None)
    marks.append(time.process_time())
    provenance(read, task.data_digest(), task.data_counts())
    batches = task.batches(0)
    marks.append(time.process_time())
    assert task.load(batches[0], 0) is not None
    marks.append(time.process_time())
    imports, *parts = marks[0], *(after - before for before, after in pairwise(marks))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shown = ", ".join(f"{name} {value:.1f}" for name, value in zip(("task", "batches", "first"), parts, strict=True))
    print(f"{len(batches):,} batches: {marks[-1]:.1f} CPU s (imports {imports:.1f}, {shown}), at most {peak:.0f} MB")


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_manifest(folder / "manifest.jsonl", count)
            (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, model=MODEL))
            print(f"{count:,} rows, ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "start", str(folder / "recipe.yaml")], check=True)


if __name__ == "__main__":
    start(Path(sys.argv[2])) if sys.argv[1] == "start" else main([int(count) for count in sys.argv[1:]])
