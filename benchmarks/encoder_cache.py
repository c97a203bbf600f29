"""Three epochs of a speech LLM with `encoder.cache`, the first one included, against `cache: null`.

OMP_NUM_THREADS=1 python benchmarks/encoder_cache.py MANIFEST --parts DIR [--split train] [--encoder whisper-base]
    [--window padded] [--batches 4] [--size 8] [--rounds 1]

An encoder that is frozen, a linear bridge, SmolLM2-135M with LoRA (`training.py`), one thread, one process, in turns,
nothing augmented. Seconds are of processor time; an epoch counts from the last step of the one before to its own, so
that checkpoints are in it.
"""

import argparse
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from kikitori.types import Utterance
from training import recipe, some_batches, trained

EPOCHS = 3


def epochs(rows: list[Utterance], parts: Path, encoder: str, window: str, size: int, *, cached: bool) -> list[float]:
    """Seconds of processor time of each epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        section = {"init": encoder, "window": window, **({"cache": str(folder / "cache")} if cached else {})}
        clock = trained(recipe(folder, rows, parts, section, EPOCHS), folder / "run", size)
        if cached:
            num_bytes = (folder / "cache" / "states.f16").stat().st_size
            print(f"the cache has {num_bytes / 2**20:.1f} MB", file=sys.stderr)
    ends = clock.processor[:: len(rows) // size]
    return [end - begin for begin, end in pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--parts", type=Path, required=True, help="folder of the encoder and of the LLM")
    parser.add_argument("--encoder", default="whisper-base")
    parser.add_argument("--window", choices=["padded", "speech"], default="padded")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--size", type=int, default=8, help="utterances in a batch")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batches = some_batches(given.manifest, given.split, given.size, given.batches)
    rows = [row for batch in batches for row in batch]
    print(f"{len(rows)} utterances, {sum(row.duration for row in rows):.0f} s, window: {given.window}", flush=True)
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(given.rounds):
        for cached, rounds in found.items():
            seconds = epochs(rows, given.parts, given.encoder, given.window, given.size, cached=cached)
            rounds.append(seconds)
            line = ", ".join(f"{each:.1f}" for each in seconds)
            print(f"{'with' if cached else 'without'} cache: {line} s", file=sys.stderr, flush=True)
    without, kept = ([median(values) for values in zip(*rounds, strict=True)] for rounds in found.values())
    later = sum(kept[1:]) / sum(without[1:])
    print(f"all {EPOCHS} epochs: {sum(without) / sum(kept):.2f} times as fast with the cache")
    print(f"an epoch after the first: {1 / later:.2f} times as fast ({later:.2f} of the time)")


if __name__ == "__main__":
    main()
