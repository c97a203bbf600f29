"""Long recordings joined from utterances of a manifest, beside the utterances one by one: WER, RTFx, peak memory.

    python benchmarks/long_audio.py MANIFEST --split test --minutes 20 60 [--model FOLDER] [--decoding ctc_greedy]

Between utterances lies faint noise of 0.2 to 1 s; a recording longer than all utterances has some of them again, in
another order. RTFx is of processor time, so that other work does not count. Memory is compared with that of a recording
of one minute, so lengths rise.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

import kikitori
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.scoring.metrics import word_errors
from kikitori.text.normalize import default_normalizer, normalize
from kikitori.types import Transcript, Utterance


def join(rows: Sequence[Utterance], minutes: float, file: Path) -> tuple[list[Utterance], float]:
    """Writes the recording; returns the rows that it holds, in their order, and its seconds."""
    generator = np.random.default_rng(0)
    used, seconds = list[Utterance](), 0.0
    with sf.SoundFile(file, "w", 16000, 1) as sound:
        while seconds < 60 * minutes:
            for index in generator.permutation(len(rows)):
                pause = 3e-4 * generator.standard_normal(int(generator.uniform(0.2, 1.0) * 16000))
                sound.write(pause.astype(np.float32))
                sound.write(read_utterance(rows[index]))
                used.append(rows[index])
                seconds += rows[index].duration + len(pause) / 16000
                if seconds >= 60 * minutes:
                    break
    return used, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--minutes", type=float, nargs="+", default=[20.0])
    parser.add_argument("--model", default="mini-en")
    parser.add_argument("--decoding")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = kikitori.load(options.model, decoding=options.decoding)
    rows = read_manifest(options.manifest, split=options.split).utterances
    name = default_normalizer([row.language for row in rows])

    def transcribe(minutes: float) -> tuple[list[Utterance], float, Transcript, float]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "long.flac"
            used, seconds = join(rows, minutes, file)
            started = time.process_time()
            (found,) = recognizer.transcribe_many([file], batch_size=options.batch_size)
            return used, seconds, found, time.process_time() - started

    transcribe(1.0)
    minute = peak_mb()
    print(f"1 minute: peak memory {minute:.0f} MB", flush=True)
    longest: list[Utterance] = []
    for minutes in sorted(options.minutes):
        used, seconds, found, spent = transcribe(minutes)
        longest = max(longest, used, key=len)
        reference = " ".join(normalize(name, row.text or "") for row in used)
        errors = word_errors(reference, normalize(name, found.text))
        print(f"{minutes:g} minutes: {len(used)} utterances, {len(found.segments)} segments, WER {errors.rate:.4f},")
        print(f"  RTFx {seconds / spent:.1f}, {peak_mb() - minute:.0f} MB above one minute's memory", flush=True)

    distinct = {id(row): row for row in longest}
    waveforms = {key: read_utterance(row) for key, row in distinct.items()}
    spoken = sum(row.duration for row in distinct.values())
    for size in (1, options.batch_size):
        started = time.process_time()
        texts = [each.text for each in recognizer.transcribe_many(waveforms.values(), batch_size=size)]
        alone = time.process_time() - started
        heard = dict(zip(distinct, texts, strict=True))
        singles = {
            key: word_errors(normalize(name, row.text or ""), normalize(name, heard[key]))
            for key, row in distinct.items()
        }
        counted = [singles[id(row)] for row in longest]
        rate = sum(each.errors for each in counted) / sum(each.reference_length for each in counted)
        print(f"one by one, batches of {size}: WER {rate:.4f} of the longest, RTFx {spoken / alone:.1f}", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
