"""Audio seconds that a speech LLM is trained on in a second: `kikitori train` against transformers' Trainer.

OMP_NUM_THREADS=1 python benchmarks/trainer.py MANIFEST --parts DIR [--split train] [--encoder whisper-tiny.en]
    [--batches 12] [--size 8] [--rounds 2]

Whisper's encoder frozen and in the step, a linear bridge, SmolLM2-135M with LoRA: the same modules, rows and number of
utterances in a batch on both sides (`training.py`, `peers/stock_training.py`), one thread, one process, in turns. The
Trainer is at its defaults; ours has two rows: `window: padded`, where the encoder reads 30 s as it does there, and
`window: speech`. Rows are those of full batches, as an epoch over the whole manifest has them, from the shortest to the
longest; the Trainer mixes them at random, as it would all rows. That both sides train the same model is seen first: of
the same rows they have the same loss.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from kikitori.train.build.task import build_task
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from kikitori.types import Utterance
from peers.stock_training import stock_model, train_stock
from training import LLM, LORA, STRIDE, Clock, recipe, some_batches, trained

TOLERANCE = 1e-3
STOCK = "transformers' Trainer"


def ours(rows: list[Utterance], parts: Path, encoder: str, window: str, batch: int) -> Clock:
    """An epoch of `kikitori train`."""
    with tempfile.TemporaryDirectory() as folder:
        section = {"init": encoder, "window": window}
        return trained(recipe(Path(folder), rows, parts, section, 1), Path(folder), batch)


def stock(rows: list[Utterance], parts: Path, encoder: str, batch: int) -> Clock:
    """An epoch of the Trainer."""
    clock = Clock()
    model, collator = stock_model(parts / encoder, parts / LLM, STRIDE, LORA)
    with tempfile.TemporaryDirectory() as folder:
        train_stock(model, collator, rows, batch, Path(folder), clock.mark)
    return clock


def losses(rows: list[Utterance], parts: Path, encoder: str) -> tuple[float, float]:
    """The loss of the same rows on both sides, with the same bridge."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = recipe(Path(folder), rows, parts, {"init": encoder}, 1)
        task = build_task(wanted, lambda _: None)
    assert isinstance(task, SpeechLLMTask)
    model, collator = stock_model(parts / encoder, parts / LLM, STRIDE, LORA)
    model.adapter.load_state_dict(task.speech_llm.bridge.get_submodule("linear").state_dict())
    with torch.inference_mode():
        batch = task.load([*range(len(rows))], 0)
        assert batch is not None
        return float(task.loss(batch, BatchPosition(0, 0, 0.0))[0]), float(model(**collator(rows))["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--parts", type=Path, required=True, help="folder of the encoder and of the LLM")
    parser.add_argument("--encoder", default="whisper-tiny.en")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--size", type=int, default=8, help="utterances in a batch")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batches = some_batches(given.manifest, given.split, given.size, given.batches)
    rows = [row for batch in batches for row in batch]
    seconds = sum(row.duration for row in rows)
    padded = sum(len(batch) * max(row.duration for row in batch) for batch in batches)
    print(f"{len(rows)} utterances, {seconds:.0f} s; padding of our batches {1 - seconds / padded:.1%}", flush=True)
    one, other = losses(rows[:3], given.parts, given.encoder)
    print(f"loss of the same rows: {one:.5f}, {STOCK}: {other:.5f}", flush=True)
    if abs(one - other) > TOLERANCE:
        sys.exit("the two sides do not train the same model")
    sides: dict[str, Callable[[], Clock]] = {
        STOCK: partial(stock, rows, given.parts, given.encoder, given.size),
        "kikitori, window: padded": partial(ours, rows, given.parts, given.encoder, "padded", given.size),
        "kikitori, window: speech": partial(ours, rows, given.parts, given.encoder, "speech", given.size),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, run in sides.items():
            clock = run()
            spent = clock.processor[-1] - clock.processor[0], clock.wall[-1] - clock.wall[0]
            found[name].append(spent)
            print(f"{name}: {spent[0]:.1f} s of processor time, {spent[1]:.1f} s", file=sys.stderr, flush=True)
    print("audio seconds a second of processor time; of the clock; ratio to the Trainer, both ways")
    slow = [median(values) for values in zip(*found[STOCK], strict=True)]
    for name, rounds in found.items():
        took = [median(values) for values in zip(*rounds, strict=True)]
        rates = "; ".join(f"{seconds / each:.2f}" for each in took)
        print(f"{name:26} {rates}; " + ", ".join(f"{a / b:.2f}" for a, b in zip(slow, took, strict=True)))


if __name__ == "__main__":
    main()
