"""Whether our greedy search writes what transformers' `generate` writes, label for label, with real Whisper models.

python benchmarks/parity.py PARTS MANIFEST [--split test] [--count N] [--batch-sizes 1,8] [--models NAME,NAME]

PARTS holds model folders as transformers has them (`whisper-tiny.en`, `whisper-base`, ...). Both sides compute in
float32 on the CPU, each with its own features; transformers takes one recording at a time. A line for each model and
batch size; the exit status is 1 if any text differs.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from kikitori.data.augment import Waveform
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import PLAIN

Labels = tuple[int, ...]


def whisper_folders(parts: Path) -> list[Path]:
    """The folders of Whisper models."""
    return sorted(file.parent for file in parts.glob("whisper-*/config.json"))


@torch.inference_mode()
def theirs(folder: Path, waveforms: Sequence[Waveform]) -> list[Labels]:
    """What transformers writes, one recording at a time; the model finds the language out."""
    with quiet_transformers():
        network: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        extract: Any = WhisperFeatureExtractor.from_pretrained(folder)
        settings = network.eval().generation_config
        task = {"task": "transcribe"} if settings.is_multilingual else {}
        found = []
        for waveform in waveforms:
            features = extract(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            found.append(written(network.generate(features, **task)[0].tolist(), settings))
    return found


def written(labels: Sequence[int], settings: Any) -> Labels:
    """The transcript alone, without the prompt and the end."""
    prompt = {settings.decoder_start_token_id, settings.no_timestamps_token_id, settings.eos_token_id}
    for name in ("lang_to_id", "task_to_id"):
        prompt |= {*getattr(settings, name, {}).values()}
    return tuple(label for label in labels if label not in prompt)


def ours(folder: Path, waveforms: Sequence[Waveform], batch_size: int) -> Iterator[Labels]:
    """What we write."""
    recognizer = load(folder, device="cpu", guards=PLAIN)
    for begin in range(0, len(waveforms), batch_size):
        yield from (each.labels for each in recognizer.recognize(waveforms[begin : begin + batch_size], "greedy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, help="the first utterances alone")
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--models", help="names of folders in PARTS; all of them by default")
    options = parser.parse_args()
    rows = read_manifest(options.manifest, split=options.split).utterances[: options.count]
    waveforms = [read_utterance(row) for row in rows]
    differ = 0
    for folder in whisper_folders(options.parts):
        if options.models and folder.name not in options.models.split(","):
            continue
        expected = theirs(folder, waveforms)
        for size in map(int, options.batch_sizes.split(",")):
            found = ours(folder, waveforms, size)
            wrong = [row.utt_id for row, *pair in zip(rows, found, expected, strict=True) if pair[0] != pair[1]]
            equal = len(rows) - len(wrong)
            print(f"{folder.name}, batch {size}: {equal} of {len(rows)} equal", *wrong, flush=True)
            differ += len(wrong)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
