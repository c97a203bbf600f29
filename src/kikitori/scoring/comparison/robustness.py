"""Systems on corrupted recordings: the same utterances, and for every system the same samples.

`kikitori evaluate --corrupt` leaves a report of each corruption in a folder of its own beside the report of the
recordings as they are. Its rows are the same utterances again, so they are scored apart, never together.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kikitori.errors import DataError
from kikitori.io.files import write_text
from kikitori.scoring.comparison.compare import Comparison, compare
from kikitori.scoring.comparison.match import Missing, Sets, match
from kikitori.scoring.conditions import read_conditions
from kikitori.scoring.page import Section
from kikitori.scoring.predictions import read_predictions, read_report
from kikitori.scoring.report import PREDICTIONS, REPORT
from kikitori.scoring.table import markdown_table, text_table
from kikitori.text.normalize import WITHOUT_WORDS, versioned

FOLDER = "corrupted"
"""In the folder of a report: those of corruptions."""
CLEAN = "as recorded"
_KEYS = ("conditions", "scored", "wer", "wer_ci", "cer", "reference_words", "substitutions", "deletions", "insertions")


def folder_of(report: Path, corruption: str) -> Path:
    """Where the report of a corruption lies, beside that of the recordings as they are."""
    return report / FOLDER / corruption.replace(":", "-")


def read_corrupted(report: Path) -> dict[str, Sets]:
    """Predictions by corruption, with its seed if that is not 0, from the folder of a report; none without any.

    Raises:
        DataError: A report or its predictions cannot be read.
    """
    found: dict[str, Sets] = {}
    for file in sorted((report / FOLDER).glob(f"*/{REPORT}")):
        found[_name(file)] = read_predictions(file.with_name(PREDICTIONS))
    return found


def compare_corrupted(
    systems: Mapping[str, Mapping[str, Sets]], normalizer: str | None, missing: Missing = "refuse"
) -> dict[str, Comparison]:
    """Systems on each corruption that all of them have; corruptions come in the order of the first system.

    Raises:
        DataError: The systems have other utterances of one.
    """
    found = {}
    for corruption in next(iter(systems.values())):
        if all(corruption in sets for sets in systems.values()):
            sets = {name: each[corruption] for name, each in systems.items()}
            found[corruption] = compare(match(sets, missing=missing), normalizer)
    return found


def not_shared(systems: Mapping[str, Mapping[str, Sets]]) -> list[str]:
    """Corruptions that some systems have and others lack."""
    names = dict.fromkeys(corruption for sets in systems.values() for corruption in sets)
    return [name for name in names if not all(name in sets for sets in systems.values())]


def robustness_section(clean: Comparison, corrupted: Mapping[str, Comparison]) -> Section:
    """Error rates by corruption (rows) and system (columns), those of the recordings as they are first."""
    rows = [["corruption", *clean.systems]]
    for name, found in {CLEAN: clean, **corrupted}.items():
        rows.append([name, *(f"{score.words.rate:.4f}" for score in found.totals)])
    text = f"{clean.rate} of the same utterances, corrupted; every system has heard the same samples."
    return Section("Robustness", text, (rows,) if corrupted else ())


def format_robustness(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Reports of one system by corruption as an aligned plain text table; rates are fractions."""
    return text_table(_rows(reports))


def write_robustness(folder: Path, reports: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Writes the same as `robustness.md` and `robustness.json`, and returns their paths.

    Raises:
        DataError: A file cannot be written.
    """
    clean = next(iter(reports.values()))
    about = f"{clean['model']}, {clean['decoding']}, {versioned(clean['normalizer'])}: the same utterances, corrupted."
    values = {name: {key: report[key] for key in _KEYS} for name, report in reports.items()}
    contents = {
        "robustness.md": f"# Robustness\n\n{about}\n\n{markdown_table(_rows(reports))}\n",
        "robustness.json": json.dumps(values, ensure_ascii=False, allow_nan=False, indent=2) + "\n",
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def _rows(reports: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = [["corruption", "WER", "95 %", "CER", "sub", "del", "ins"]]
    for name, report in reports.items():
        has_words = report["normalizer"] not in WITHOUT_WORDS and report["wer"] is not None
        interval = " to ".join(f"{end:.4f}" for end in report["wer_ci"]) if has_words else "-"
        wer = f"{report['wer']:.4f}" if has_words else "-"
        cer = "-" if report["cer"] is None else f"{report['cer']:.4f}"
        rows.append([name, wer, interval, cer, *(str(report[key]) for key in _KEYS[-3:])])
    return rows


def _name(report: Path) -> str:
    found = read_conditions(read_report(report).get("conditions"))
    if found is None or found.corruption is None:
        remedy = "evaluate again, or remove its folder"
        raise DataError("does not say which corruption it is of", where=report, remedy=remedy)
    return f"{found.corruption} (seed {found.seed})" if found.seed else found.corruption
