"""A long recording joined from utterances of a manifest, beside the utterances one by one: WER, RTFx, peak memory.

    python benchmarks/long_audio.py MANIFEST --split test --minutes 20 [--model FOLDER] [--decoding ctc_greedy]

Between utterances lies faint noise of 0.2 to 1 s. RTFx is of processor time, so that other work does not count.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

import kikitori
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.scoring.metrics import word_errors
from kikitori.text.normalize import default_normalizer, normalize


def join(rows, minutes, file):
    """Writes the recording; returns the rows that it holds, in their order."""
    generator = np.random.default_rng(0)
    used, seconds = [], 0.0
    with sf.SoundFile(file, "w", 16000, 1) as sound:
        for index in generator.permutation(len(rows)):
            pause = (3e-4 * generator.standard_normal(int(generator.uniform(0.2, 1.0) * 16000))).astype(np.float32)
            sound.write(pause)
            sound.write(read_utterance(rows[index]))
            used.append(rows[index])
            seconds += rows[index].duration + len(pause) / 16000
            if seconds > 60 * minutes:
                break
    return used, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--model")
    parser.add_argument("--decoding")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = kikitori.load(options.model, decoding=options.decoding)
    rows = read_manifest(options.manifest, split=options.split).utterances
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.flac"
        used, seconds = join(rows, options.minutes, file)
        recognizer.transcribe(read_utterance(used[0]))
        before, started = peak_mb(), time.process_time()
        found = recognizer.transcribe(file)
        spent, after = time.process_time() - started, peak_mb()
    started = time.process_time()
    texts = [each.text for each in recognizer.transcribe_many([read_utterance(row) for row in used])]
    alone = time.process_time() - started
    name = default_normalizer([row.language for row in used])
    reference = [normalize(name, row.text) for row in used]
    whole = word_errors(" ".join(reference), normalize(name, found.text))
    singles = [word_errors(*pair) for pair in zip(reference, (normalize(name, text) for text in texts), strict=True)]
    rate = sum(each.errors for each in singles) / sum(each.reference_length for each in singles)
    spoken = sum(row.duration for row in used)
    print(f"{seconds:.0f} s, {len(used)} utterances, {len(found.segments)} segments")
    print(f"WER {whole.rate:.4f}, one by one {rate:.4f}")
    print(f"RTFx {seconds / spent:.1f}, one by one {spoken / alone:.1f} (processor time)")
    print(f"peak memory {after:.0f} MB, {after - before:.0f} MB above that of one utterance")


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
