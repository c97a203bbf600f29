"""Whether Whisper behind half a second of silence (`--window speech`) writes what it writes behind 30 s (`padded`).

OMP_NUM_THREADS=1 python benchmarks/short_windows.py MODEL MANIFEST ... [--split dev] [--step N] [--search NAME]

The utterances as they are and cut to 2, 3, 4 and 5 s in turn, from a quarter of the way on. Beside the word error
rates (of what was cut against the text behind 30 s): how many were found doubtful behind the short window and decoded
again, and of the rest how many have three words or more that the text behind 30 s has not.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kikitori.data.augment import Waveform
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.recognizer import Recognizer
from kikitori.scoring.metrics import ErrorCounts, counted_errors
from kikitori.search.windows import is_doubtful
from kikitori.types import Hypothesis

CUT_S = (2.0, 3.0, 4.0, 5.0)
BATCH = 8
MANY = 3


def cut(waveforms: Sequence[Waveform]) -> list[Waveform]:
    """A part of each waveform, from a quarter of the way on; of what is too short the rest."""
    found = []
    for number, waveform in enumerate(waveforms):
        begin, size = len(waveform) // 4, int(CUT_S[number % len(CUT_S)] * SAMPLE_RATE)
        found.append(waveform[begin : begin + size])
    return found


def best(recognizer: Recognizer, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
    """The best hypothesis of each."""
    found: list[Hypothesis] = []
    for begin in range(0, len(waveforms), BATCH):
        found += recognizer.recognize(waveforms[begin : begin + BATCH])
    return found


def errors(texts: Sequence[str], references: Sequence[str]) -> list[ErrorCounts]:
    """Of each text."""
    return [counted_errors("whisper_en", *pair) for pair in zip(references, texts, strict=True)]


def report(
    name: str, waveforms: Sequence[Waveform], references: Sequence[str], long: Recognizer, short: Recognizer
) -> None:
    """A line about some utterances; without references what the long window says stands for them."""
    whole, found = best(long, waveforms), best(replace(short, padded=None), waveforms)
    doubtful = [is_doubtful(each, len(row) / SAMPLE_RATE) for each, row in zip(found, waveforms, strict=True)]
    written = [pair[doubt].text for *pair, doubt in zip(found, whole, doubtful, strict=True)]
    expected = [each.text for each in whole]
    more = sum(each.insertions >= MANY for each in errors(written, expected))
    rates = [
        "-"
        if texts is expected and not references
        else f"{sum(errors(texts, references or expected), ErrorCounts()).rate:.4f}"
        for texts in (expected, [each.text for each in found], written)
    ]
    print(f"{name} | {len(waveforms)} | {' | '.join(rates)} | {sum(doubtful)} | {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--step", type=int, default=1, help="every so many utterances alone")
    parser.add_argument("--search", help="in place of the model's own")
    options = parser.parse_args()
    long, short = (
        load(options.model, device="cpu", decoding=options.search, window=each) for each in ("padded", "speech")
    )
    print(
        "utterances | number | padded: WER | speech, first pass | speech | decoded again | with more words", flush=True
    )
    for manifest in options.manifests:
        rows = read_manifest(manifest, split=options.split).utterances[:: options.step]
        waveforms, name = [read_utterance(row) for row in rows], manifest.parent.name
        report(name, waveforms, [row.text or "" for row in rows], long, short)
        report(f"{name}, cut", cut(waveforms), (), long, short)


if __name__ == "__main__":
    main()
