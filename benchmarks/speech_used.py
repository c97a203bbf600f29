"""How much of what a speech LLM writes it has from its draft, and how much from the speech: error rates on one set.

python benchmarks/speech_used.py PART --data MANIFEST [--split dev] [--every 4]

Rows: the CTC head and the draft alone; `greedy`; `greedy` with the speech, the draft, or both of another utterance.
Errors after Whisper's English normalizer; float32, CPU.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.loading import load
from kikitori.recognizer import PLAIN
from kikitori.scoring.metrics import ErrorCounts, confidence_interval, word_errors
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.search.ctc.run import first_pass
from kikitori.search.length import Limits, max_labels
from kikitori.text.normalize import normalize

BATCH = 8


def counts(references: Sequence[str | None], texts: Sequence[str]) -> list[ErrorCounts]:
    pairs = zip(references, texts, strict=True)
    return [word_errors(normalize("whisper_en", text or ""), normalize("whisper_en", found)) for text, found in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    recognizer = load(options.part, device="cpu", guards=PLAIN)
    rows = sorted(read_manifest(options.data, split=options.split).utterances, key=lambda row: row.duration)
    rows = rows[:: options.every]
    found: dict[str, list[ErrorCounts]] = {}
    for begin in range(0, len(rows), BATCH):
        part = rows[begin : begin + BATCH]
        batch = recognizer.encode([read_utterance(row) for row in part])
        others = batch.rows([*range(1, len(part)), 0])
        with torch.inference_mode():
            heads = ctc_greedy(*batch.acoustic.log_probs(batch.encoded))
            texts = {"CTC head": [batch.ctc_units.decode(best.labels) for (best,) in heads]}
            own = swapped = None
            if recognizer.loaded.model.reads_drafts:
                drafts = first_pass(batch, batch.external_models.draft_search)
                own = batch.encode_texts(drafts)
                texts["draft"] = [draft.text for draft in drafts]
                swapped = [*own[1:], *own[:1]]
            trials = [("greedy", batch, own), ("speech of another", others, own)]
            if own is not None:
                trials.append(("draft of another", batch, swapped))
                trials.append(("speech and draft of another", others, swapped))
            for name, source, read in trials:
                limits = [max_labels(seconds, batch.trained_on.labels_per_second) for seconds in source.seconds]
                written = greedy(source.decoder(read), Limits(limits))
                texts[name] = [batch.units.decode(best.labels) for (best,) in written]
        for name, each in texts.items():
            found.setdefault(name, []).extend(counts([row.text or "" for row in part], each))
    for name, errors in found.items():
        total, (low, high) = sum(errors, ErrorCounts()), confidence_interval(errors)
        print(f"{name} | {total.rate:.4f} ({total.errors} / {total.reference_length}) [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
