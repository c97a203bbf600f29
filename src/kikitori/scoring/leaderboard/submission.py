"""A folder with what of a submission to the Open ASR Leaderboard can be made here: result files, scores, a README."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kikitori.io.files import write_text
from kikitori.scoring.leaderboard.results import NORMALIZER, Dataset, Result, format_results
from kikitori.scoring.leaderboard.score import Score, mean_wer, score, total_rtfx
from kikitori.scoring.table import markdown_table
from kikitori.text.normalize import versioned

RESULTS, SCORES, README = "results", "scores.json", "README.md"
_STILL_NEEDED = """\
## What is still to be done by hand
- Score `results/` with the leaderboard's own script: its word lists are longer than those of our normalizer.
- The maintainers run models on their own machine (one H200): they need a Docker Space with a `run_eval.py`, a folder
  with a `submit_jobs.sh`, the same decoding settings for all sets, the largest batch that fits, and the total number of
  parameters.
- `.eval_results/open_asr_leaderboard.yaml` in the repository of the model.
- The private sets are run by the maintainers.
"""


def score_table(scores: Mapping[str, Score]) -> str:
    """Sets, their mean and the speed over all of them, in Markdown."""
    rows = [["set", "recordings", "WER (%)", "sub", "del", "ins", "words", "RTFx"]]
    for name, each in scores.items():
        counts = (each.substitutions, each.deletions, each.insertions, each.words)
        rows.append([name, str(each.recordings), f"{each.wer:.2f}", *map(str, counts), _speed(each.rtfx)])
    rows.append(["mean of sets", "", f"{mean_wer(scores):.2f}", "", "", "", "", _speed(total_rtfx(scores))])
    return markdown_table(rows)


def write_submission(
    folder: Path, model_id: str, sets: Mapping[Dataset, Sequence[Result]], facts: Mapping[str, Any]
) -> list[Path]:
    """Writes the files of a submission, each whole or not at all, and returns their paths.

    Args:
        folder: Where to.
        model_id: Hub id of the model.
        sets: Results by their data set.
        facts: What is known of the evaluation: model, search, conditions, versions.

    Raises:
        DataError: A set cannot be scored, or a file cannot be written.
    """
    scores = {str(dataset): score(results) for dataset, results in sets.items()}
    contents = {
        f"{RESULTS}/{dataset.file_name(model_id)}": format_results(results) for dataset, results in sets.items()
    }
    values = {
        "model_id": model_id,
        "normalizer": versioned(NORMALIZER),
        "mean_wer": mean_wer(scores),
        "rtfx": total_rtfx(scores),
        "sets": {name: asdict(each) | {"rtfx": each.rtfx} for name, each in scores.items()},
        "evaluation": dict(facts),
    }
    contents[SCORES] = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    contents[README] = _readme(model_id, scores, facts)
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def _readme(model_id: str, scores: Mapping[str, Score], facts: Mapping[str, Any]) -> str:
    known = "".join(f"- {key}: {value}\n" for key, value in facts.items() if value)
    form = f"Scored in the form {versioned(NORMALIZER)} of kikitori, compounds joined, WER in percent.\n"
    title = f"# {model_id} on the Open ASR Leaderboard's sets\n"
    return "\n".join([title, form, score_table(scores) + "\n", known, _STILL_NEEDED])


def _speed(rtfx: float | None) -> str:
    return "-" if rtfx is None else f"{rtfx:.2f}"
