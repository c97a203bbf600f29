"""What CTC heads beside a Whisper decoder, and an LLM, add to it: a table of error rates with paired intervals.

python benchmarks/real_parts.py PART OUT --data SPEECH [--split dev] [--every 4] [--lm FOLDER]
    [--scales ctc=0.05,phones=0.03]... [--grid]

PART is a folder of heads (models/whisper-base-ctc), SPEECH the folder of the corpora. The hypotheses of `greedy` and of
the first search, `joint`, go with all their scores to OUT, one file for each set; what lies there is not done again, so
that scales are tried in seconds. Each `--scales` is a row: these hypotheses in the order of the decoder and the named
scorers (`ctc`, `phones`, `lm`); `--grid` tries many instead, which is for dev. Float32, CPU; errors after Whisper's
English normalizer; changes against `greedy` with the 95 % interval of the paired bootstrap and a matched-pairs p-value.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from kikitori.data.manifest import read_manifest
from kikitori.loading import load
from kikitori.recognizer import PLAIN, Recognizer
from kikitori.scorers.options import ScorerOptions, Scorers, with_scales
from kikitori.scoring.metrics import ErrorCounts, confidence_interval, word_errors
from kikitori.scoring.paired import compare
from kikitori.scoring.report import Prediction
from kikitori.search.options import Decoding, GreedySearch, JointSearch, RescoringSearch
from kikitori.search.pruning import JointPruning
from kikitori.search.rescore import rescored
from kikitori.text.normalize import normalize
from kikitori.types import Hypothesis, Utterance
from kikitori.workflows.evaluate import Searching, evaluate_batch

SETS = {"librispeech": "librispeech_clean_5", "accented": "speechocean762_adults", "ljspeech": "ljspeech_mini"}
PRUNING = JointPruning(variants=1, score_beam=8.0)
FIRST = JointSearch(beam=8, nbest=8, pruning=PRUNING, scorers={"ctc": ScorerOptions(scale=0.05)})
GRID: Mapping[str, Sequence[float]] = {
    "ctc": (0.0, 0.02, 0.05, 0.08),
    "phones": (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15),
    "lm": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
}

Row = tuple[str, list[Hypothesis]]
"""The reference of an utterance and its hypotheses, with their scores."""


def utterances(data: Path, split: str, every: int) -> dict[str, list[Utterance]]:
    """The utterances of each set; of the accented ones every so many."""
    found = {}
    for name, corpus in SETS.items():
        if name == "ljspeech" and split == "dev":  # it has none
            continue
        rows = read_manifest(data / corpus / "manifest.jsonl", split=split).utterances
        found[name] = [*rows[:: every if name == "accented" else 1]]
    return found


def rows_of(
    file: Path, recognizer: Recognizer, rows: Sequence[Utterance], search: Decoding, size: int = 8
) -> list[Row]:
    """The hypotheses of a search in every utterance; those that are not in the file are made, and added to it."""
    done = {}
    if file.is_file():
        done = {each["id"]: each["nbest"] for each in map(json.loads, file.read_text().splitlines())}
    missing = sorted((row for row in rows if row.utt_id not in done), key=lambda row: row.duration)
    system = Searching(recognizer, search, PLAIN)
    with file.open("a") as out:
        for begin in range(0, len(missing), size):
            for found in evaluate_batch(system, missing[begin : begin + size]):
                done[found.utterance.utt_id] = written(found)
                out.write(json.dumps({"id": found.utterance.utt_id, "nbest": done[found.utterance.utt_id]}) + "\n")
            out.flush()
    return [(row.text or "", [read(each) for each in done[row.utt_id]]) for row in rows]


def written(prediction: Prediction) -> list[dict[str, object]]:
    """The hypotheses of an utterance as they stand in a file."""
    nbest = prediction.nbest or (Hypothesis((), prediction.pred_text, 0.0),)
    return [{"text": each.text, "score": each.score, "scores": dict(each.scores)} for each in nbest]


def read(values: Mapping[str, object]) -> Hypothesis:
    """A hypothesis of a file."""
    return Hypothesis((), str(values["text"]), float(values["score"]), scores=values["scores"])  # type: ignore[arg-type]


def errors(rows: Sequence[Row], scales: Mapping[str, float]) -> list[ErrorCounts]:
    """The errors in each utterance of the best hypothesis by scales."""
    return [counts(text, rescored(nbest, scales)[0].text) for text, nbest in rows]


def counts(reference: str, text: str) -> ErrorCounts:
    """Word errors after Whisper's normalizer."""
    return word_errors(normalize("whisper_en", reference), normalize("whisper_en", text))


def table(name: str, greedy: Mapping[str, list[ErrorCounts]], found: Mapping[str, list[ErrorCounts]]) -> Iterator[str]:
    """A line for each set and one for all."""
    pooled = [[count for each in system.values() for count in each] for system in (greedy, found)]
    sets = [(key, greedy[key], found[key]) for key in found]
    for label, base, system in [*sets, ("all", pooled[0], pooled[1])]:
        total, (low, high) = sum(system, ErrorCounts()), confidence_interval(system)
        line = (
            f"{name} | {label} | {total.rate:.4f} ({total.errors} / {total.reference_length}) [{low:.4f}, {high:.4f}]"
        )
        if system is not base:
            against = compare(base, system)
            line += f" | {against.change:+.4f} [{against.interval[0]:+.4f}, {against.interval[1]:+.4f}]"
            line += f" p {against.p_value:.4f} | {against.better} better, {against.worse} worse"
        yield line


def scales_of(text: str) -> dict[str, float]:
    """Scales such as `ctc=0.05,phones=0.03`, with that of the decoder."""
    pairs = (each.split("=") for each in text.split(","))
    return {"speech_llm": 1.0, **{name: float(value) for name, value in pairs}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--every", type=int, default=1, help="of the accented utterances every so many")
    parser.add_argument("--lm", help="folder of a language model, for scales of lm")
    parser.add_argument("--scales", action="append", default=[], type=scales_of)
    parser.add_argument("--grid", action="store_true", help="the ten best of many scales")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recognizer = load(options.part, device="cpu", guards=PLAIN)
    scorers: Scorers = {} if options.lm is None else {"lm": ScorerOptions(path=options.lm)}
    lists = RescoringSearch(first=FIRST, scorers=with_scales(scorers, dict.fromkeys(("ctc", "phones", *scorers), 0.0)))
    greedy, joint = {}, {}
    for name, rows in utterances(options.data, options.split, options.every).items():
        files = [options.out / f"{search}.{options.split}.{name}.jsonl" for search in ("greedy", "lists")]
        best = rows_of(files[0], recognizer, rows, GreedySearch())
        greedy[name] = [counts(text, nbest[0].text) for text, nbest in best]
        joint[name] = rows_of(files[1], recognizer, rows, lists)
    wanted = [{"speech_llm": 0.95, "ctc": 0.05}, *options.scales]
    if options.grid:
        names = [name for name in GRID if name != "lm" or options.lm is not None]
        points = [
            {"speech_llm": 1.0, **dict(zip(names, point, strict=True))}
            for point in product(*(GRID[name] for name in names))
        ]
        wanted = sorted(
            points, key=lambda scales: sum(e.errors for rows in joint.values() for e in errors(rows, scales))
        )
    print("\n".join(table("greedy", greedy, greedy)))
    for scales in wanted[: 10 if options.grid else None]:
        found = {name: errors(rows, scales) for name, rows in joint.items()}
        print("\n".join(table(", ".join(f"{name} {scale:g}" for name, scale in scales.items()), greedy, found)))


if __name__ == "__main__":
    main()
