"""Times of words in a recording joined with known gaps, beside the phone alignments of `kikitori align`.

    kikitori align --data MANIFEST --split dev --lexicon LEXICON -o phones.safetensors
    python benchmarks/word_times.py MANIFEST phones.safetensors LEXICON --split dev [--minutes 10] [--model FOLDER]

Words that are recognised rightly are compared: by how much their borders differ, in milliseconds.
"""

import argparse
import tempfile
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch

import kikitori
from kikitori.align.hmm.corpus import load_alignments, segments, word_spans
from kikitori.data.manifest import read_manifest
from kikitori.text.forms.text_form import in_form
from kikitori.text.lexicon import read_lexicon
from kikitori.types import Utterance
from long_audio import join


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("phones", type=Path)
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="mini-en")
    parser.add_argument("--decoding")
    options = parser.parse_args()
    torch.set_num_threads(1)
    alignments, lexicon = load_alignments(options.phones), read_lexicon(options.lexicon)
    spans = {}
    for row in read_manifest(options.manifest, split=options.split).utterances:
        if row.utt_id in alignments.states:
            phones = segments(alignments.states[row.utt_id], alignments.labels)
            spans[row.utt_id] = (row, word_spans(in_form(row.text or "", "en_plain"), phones, lexicon))
    rows = [row for row, words in spans.values() if words]
    recognizer = kikitori.load(options.model, decoding=options.decoding)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "joined.flac"
        used = join(rows, options.minutes, file)[0]
        found = recognizer.transcribe(file, word_times=True)
        places = starts(rows, options.minutes)
    known = [(w, a + at, b + at) for row, at in zip(used, places, strict=True) for w, a, b in spans[row.utt_id][1]]
    heard = [(in_form(word.word, "en_plain").strip(), word.start, word.end) for word in found.words]
    matcher = SequenceMatcher(None, [each[0] for each in known], [each[0] for each in heard], autojunk=False)
    pairs = [(known[m.a + i][1:], heard[m.b + i][1:]) for m in matcher.get_matching_blocks() for i in range(m.size)]
    print(f"{len(pairs)} of {len(known)} words recognised")
    for name, column in (("starts", [0]), ("ends", [1]), ("borders", [0, 1])):
        off = np.array([1000 * (ours[c] - theirs[c]) for theirs, ours in pairs for c in column])
        middle, wide = np.percentile(np.abs(off), [50, 95])
        within = 100 * np.mean(np.abs(off) < 200)
        print(f"{name}: median {middle:.0f} ms, 95 % {wide:.0f} ms, {within:.1f} % below 200 ms; {np.median(off):+.0f}")


def starts(rows: Sequence[Utterance], minutes: float) -> list[float]:
    """Where each utterance of `join` begins, in seconds, by the same random numbers."""
    generator = np.random.default_rng(0)
    found, seconds = list[float](), 0.0
    while seconds < 60 * minutes:
        for index in generator.permutation(len(rows)):
            pause = len(generator.standard_normal(int(generator.uniform(0.2, 1.0) * 16000))) / 16000
            found.append(seconds + pause)
            seconds += rows[index].duration + pause
            if seconds >= 60 * minutes:
                break
    return found


if __name__ == "__main__":
    main()
