"""Speed and word error rate of recognisers beside each other: the same utterances, batch and threads, taking turns.

OMP_NUM_THREADS=1 python benchmarks/speed.py MANIFEST [--split dev] [--first N] [--step N] [--batch-sizes 1,8]
    [--rounds N] CONTENDER ...

A contender is `hf:FOLDER` or `ct2:FOLDER[@int8]`, which transformers or faster-whisper runs (greedy), or one of ours:
`MODEL[@SEARCH[@WINDOW[@DTYPE]]]`, such as `tiny-en`, `openai/whisper-base@greedy@speech@int8`. The first
one is what the others are compared with. Times are those of the CPU, so that other work on the machine counts less; of
each contender the fastest round counts, after a first batch that does not.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kikitori.baselines.load import load_baseline
from kikitori.data.augment import Waveform
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.errors import AudioError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import BASELINES, load
from kikitori.scoring.metrics import ErrorCounts, counted_errors
from kikitori.search.batch import Result

Recognize = Callable[[Sequence[Waveform]], list[Result]]


def contender(name: str) -> Recognize:
    """What a contender does with a batch."""
    if name.startswith(BASELINES):
        folder, *given = name.split("@")
        numbers: Any = {"dtype": given[0]} if given else {}
        return load_baseline(folder, device="cpu", **numbers).recognize
    model, search, window, dtype = [*name.split("@"), "", "", ""][:4]
    told: Any = {key: value for key, value in (("window", window), ("dtype", dtype)) if value}
    return load(model, device="cpu", decoding=search or None, **told).try_recognize


def texts(recognize: Recognize, waveforms: Sequence[Waveform], batch_size: int) -> list[str]:
    """What is found in each utterance; what cannot be decoded has no text."""
    found: list[Result] = []
    for begin in range(0, len(waveforms), batch_size):
        found += recognize(waveforms[begin : begin + batch_size])
    return ["" if isinstance(each, AudioError) else each[0].text for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("contenders", nargs="+")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--first", type=int, help="so many utterances alone")
    parser.add_argument("--step", type=int, default=1, help="every so many utterances alone")
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    rows = read_manifest(options.manifest, split=options.split).utterances[:: options.step][: options.first]
    waveforms = [read_utterance(row) for row in rows]
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    print(f"{len(rows)} utterances, {seconds:.0f} s, {torch.get_num_threads()} threads")
    print("batch | contender | CPU s | RTFx | times the first | WER | errors", flush=True)
    loaded = {name: contender(name) for name in options.contenders}
    for size in map(int, options.batch_sizes.split(",")):
        best: dict[str, float] = {}
        found: dict[str, list[str]] = {}
        for recognize in loaded.values():
            recognize(waveforms[:1])
        for _ in range(options.rounds):
            for name, recognize in loaded.items():
                started = time.process_time()
                found[name] = texts(recognize, waveforms, size)
                best[name] = min(best.get(name, float("inf")), time.process_time() - started)
        first = best[options.contenders[0]]
        for name, taken in best.items():
            counts = ErrorCounts()
            for row, text in zip(rows, found[name], strict=True):
                counts += counted_errors("whisper_en", row.text or "", text)
            rates = f"{seconds / taken:.1f} | {first / taken:.2f} | {counts.rate:.4f} | {counts.errors}"
            print(f"{size} | {name} | {taken:.2f} | {rates}", flush=True)


if __name__ == "__main__":
    main()
