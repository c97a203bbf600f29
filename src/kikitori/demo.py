"""The demonstration: `python -m kikitori.demo` transcribes the bundled recordings with the bundled model.

It runs by integration (`greedy`: the speech LLM), by the CTC head of the same model alone (`ctc_greedy`) and, if that
is neither, by the model's own search: that of mini-en combines CTC with a lexicon and an n-gram (`lexicon`). It prints
all texts under the reference, and one line `WER <mode> <fraction>` per mode.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kikitori.errors import KikitoriError
from kikitori.scoring.report import Prediction

MODES = ("greedy", "ctc_greedy")
NORMALIZER = "whisper_en"
SAMPLES = Path(__file__).parent / "samples"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demonstration; returns the exit status: 0 done, 1 a recording failed, 2 it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m kikitori.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="model folder; the bundled mini-en by default")
    model: Path | None = parser.parse_args(arguments).model
    try:
        predictions = transcribe_samples(model)
    except KikitoriError as error:
        print(f"kikitori: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(format_demo(predictions))  # noqa: T201
    return int(any(prediction.error for rows in predictions.values() for prediction in rows))


def transcribe_samples(model: Path | None = None) -> dict[str, list[Prediction]]:
    """Transcribes the bundled recordings; returns the predictions of each mode, in the order of the manifest.

    Raises:
        KikitoriError: The model or the recordings cannot be used.
    """
    from kikitori.data.manifest import read_manifest
    from kikitori.recognizer import load
    from kikitori.search.options import load_decoding
    from kikitori.workflows.evaluate import evaluate

    samples = {"samples": read_manifest(SAMPLES / "manifest.jsonl").utterances}
    recognizer = load(model)
    searches = {mode: load_decoding(mode) for mode in MODES} | {recognizer.decoding.search: recognizer.decoding}
    return {mode: evaluate(recognizer, samples, decoding=search)["samples"] for mode, search in searches.items()}


def format_demo(predictions: Mapping[str, Sequence[Prediction]]) -> str:
    """Returns, per recording, its file, the reference and the text of each mode; then the word error rates."""
    from kikitori.scoring.metrics import ErrorCounts, word_errors
    from kikitori.text.normalize import normalize

    width = max(map(len, ("reference", *predictions)))
    lines = []
    for rows in zip(*predictions.values(), strict=True):
        utterance = rows[0].utterance
        lines += [utterance.audio_filepath.name, f"  {'reference':{width}}  {utterance.text}"]
        for mode, row in zip(predictions, rows, strict=True):
            lines.append(f"  {mode:{width}}  {row.pred_text if row.error is None else f'FAILED: {row.error}'}")
        lines.append("")
    for mode, mode_rows in predictions.items():
        pairs = [(row.utterance.text or "", row.pred_text) for row in mode_rows]
        counts = [word_errors(normalize(NORMALIZER, left), normalize(NORMALIZER, right)) for left, right in pairs]
        lines.append(f"WER {mode} {sum(counts, ErrorCounts()).rate:.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
