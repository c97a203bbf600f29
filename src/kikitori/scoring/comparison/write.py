"""A comparison as files: `comparison.json`, `comparison.md` and `comparison.html`, which needs nothing beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError
from kikitori.io.files import write_text
from kikitori.io.nist.stm import write_stm
from kikitori.io.nist.trn import write_trn
from kikitori.scoring.comparison.compare import Comparison, Score
from kikitori.scoring.comparison.picture import draw
from kikitori.scoring.comparison.references import stretches_of
from kikitori.scoring.comparison.tables import Background, comparison_sections, examples, verdict
from kikitori.scoring.metrics import ErrorCounts
from kikitori.scoring.page import Section, render_comparison
from kikitori.scoring.table import markdown_table
from kikitori.text.normalize import versions_of

REFERENCE = "reference"
"""Name of the files of what was said, for sclite."""
FILES = ("comparison.json", "comparison.md", "comparison.html")


def format_markdown(title: str, sentences: str, sections: Sequence[Section]) -> str:
    """Sections under a title and a first paragraph."""
    parts = [f"# {title}", sentences]
    for section in sections:
        parts += [f"## {section.title}", section.text, *map(markdown_table, section.tables)]
    return "\n\n".join(parts)


def comparison_values(several: Sequence[Comparison], background: Background, sentences: str) -> dict[str, Any]:
    """The content of `comparison.json`: what each normalizer counts, and what each system took; rates are fractions."""
    return {
        "verdict": sentences,
        "systems": [asdict(speed) | _known(speed.system, background) for speed in several[0].speeds],
        "normalizers": [
            {
                "normalizer": found.form,
                "normalizer_versions": versions_of(found.form),
                "unit": found.unit,
                "scores": [*map(_score, found.scores)],
            }
            for found in several
        ],
        "corrupted": {name: [*map(_score, found.scores)] for name, found in background.corrupted.items()},
    }


def write_comparison(
    folder: Path, several: Sequence[Comparison], background: Background, versions: Mapping[str, str]
) -> str:
    """Writes a comparison by one or more normalizers, with what else is known; returns it in Markdown.

    Raises:
        DataError: A file cannot be written.
    """
    found = several[0]
    sections, sentences = comparison_sections(several, background), verdict(found)
    values = comparison_values(several, background, sentences) | {"versions": dict(versions)}
    made_by = [f"{package} {version}" for package, version in versions.items()]
    page = render_comparison("comparison", made_by, sentences, draw(found), sections, examples(found))
    markdown = format_markdown("Comparison", sentences, sections) + "\n"
    for name, content in zip(
        FILES, (json.dumps(values, ensure_ascii=False, allow_nan=False, indent=2) + "\n", markdown, page), strict=True
    ):
        write_text(folder / name, content)
    return markdown


def _known(system: str, background: Background) -> dict[str, Any]:
    conditions = background.conditions.get(system)
    return {
        "facts": [*background.facts.get(system, ())],
        "conditions": None if conditions is None else asdict(conditions),
    }


def _score(score: Score) -> dict[str, Any]:
    return asdict(score) | {"words": _counts(score.words), "characters": _counts(score.characters)}


def _counts(counts: ErrorCounts) -> dict[str, Any]:
    return asdict(counts) | {"errors": counts.errors, "rate": counts.rate}


def nist_files(folder: Path, systems: Sequence[str]) -> dict[str, Path]:
    """The `trn` file of each system, by its name.

    Raises:
        ConfigError: Two have the same one, or one that of the references.
    """
    files: dict[str, Path] = {}
    for system in systems:
        file = folder / f"{system.replace('/', '-')}.trn"
        if file.stem == REFERENCE or file in files.values():
            remedy = "name it otherwise, as NAME=PATH"
            raise ConfigError(f"another {file.name} is written for --nist", where=system, remedy=remedy)
        files[system] = file
    return files


def write_nist(folder: Path, found: Comparison) -> list[Path]:
    """Writes normalised texts for sclite, `reference.trn` and one for each system, and `reference.stm` as spoken.

    Ids are numbered, since those of several sets may be the same; characters are words where there are none.

    Raises:
        ConfigError: Two systems have the same file, or one that of the references.
        DataError: A file cannot be written.
    """
    first = found.rows[found.systems[0]]
    ids = [f"{number:06}-{row.prediction.utterance.utt_id}" for number, row in enumerate(first)]
    files = nist_files(folder, found.systems)
    texts = {folder / f"{REFERENCE}.trn": [row.reference for row in first]}
    texts |= {files[system]: [row.predicted for row in rows] for system, rows in found.rows.items()}
    for path, spoken in texts.items():
        write_trn(path, {utt_id: " ".join(words) for utt_id, words in zip(ids, spoken, strict=True)})
    stretches = folder / f"{REFERENCE}.stm"
    write_stm(stretches, stretches_of(row.prediction.utterance for row in first))
    return [*texts, stretches]
