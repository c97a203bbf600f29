"""`make demo`: the bundled recordings through the bundled model, and what was said in them.

By the decoder alone (`greedy`), by the CTC head alone (`ctc_greedy`) and, if that is neither, by the model's default
search: that of tiny-en combines both (`cascade`). All texts under the reference, and one line
`WER <search> <fraction>` for each search. `tools/demo.py mini-en` shows a speech LLM.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kikitori import load
from kikitori.data.manifest import read_manifest
from kikitori.errors import KikitoriError
from kikitori.io.progress import notes_as_lines
from kikitori.loading import BUNDLED
from kikitori.scoring.metrics import ErrorCounts, word_errors
from kikitori.scoring.report import Prediction
from kikitori.search.options import load_decoding
from kikitori.text.normalize import normalize
from kikitori.workflows.evaluate import Searching, evaluate_batch

SAMPLES = BUNDLED.parents[1] / "samples" / "manifest.jsonl"
SEARCHES = ("greedy", "ctc_greedy")


def main(model: Path | str | None = None) -> int:
    """Returns the exit status: 0 done, 1 a recording failed, 2 it cannot start."""
    try:
        with notes_as_lines():
            predictions = transcribe_samples(model)
    except KikitoriError as error:
        print(f"kikitori: {error}", file=sys.stderr)
        return 2
    print(format_demo(predictions))
    return int(any(row.error for rows in predictions.values() for row in rows))


def transcribe_samples(model: Path | str | None = None) -> dict[str, list[Prediction]]:
    """The predictions of each search, in the order of the manifest."""
    samples = read_manifest(SAMPLES).utterances
    recognizer = load(model)
    searches = {name: load_decoding(name) for name in SEARCHES} | {recognizer.decoding.search: recognizer.decoding}
    return {name: evaluate_batch(Searching(recognizer, search), samples) for name, search in searches.items()}


def format_demo(predictions: Mapping[str, Sequence[Prediction]]) -> str:
    """Per recording its file, the reference and the text of each search; then the word error rates."""
    width = max(map(len, ("reference", *predictions)))
    lines = []
    for rows in zip(*predictions.values(), strict=True):
        utterance = rows[0].utterance
        lines += [utterance.audio_filepath.name, f"  {'reference':{width}}  {utterance.text}"]
        for name, row in zip(predictions, rows, strict=True):
            lines.append(f"  {name:{width}}  {row.pred_text if row.error is None else f'FAILED: {row.error}'}")
        lines.append("")
    for name, found in predictions.items():
        counts = [word_errors(scored(row.utterance.text or ""), scored(row.pred_text)) for row in found]
        lines.append(f"WER {name} {sum(counts, ErrorCounts()).rate:.4f}")
    return "\n".join(lines)


def scored(text: str) -> str:
    """The form of a text whose words are counted."""
    return normalize("whisper_en", text)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
