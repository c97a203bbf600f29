"""`kikitori list`: the recognisers that `--model` finds on this machine by name, from their `config.json` alone."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from kikitori import loading
from kikitori.errors import KikitoriError
from kikitori.io.model_folder import BASE, ModelType
from kikitori.model.published.aed import family_of
from kikitori.model.published.part import PARTS, base_names, find_base
from kikitori.model.published.second_decoder import decoders_in
from kikitori.model.safety.config import read_json
from kikitori.model.safety.trained_on import read_trained_on


@dataclass(frozen=True)
class ModelAtHand:
    """A recogniser on this machine.

    Attributes:
        name: What `--model` takes: a name, a folder or a hub id.
        kind: What it is, in words.
        language: Code of its language; None if it knows several, or does not say.
        megabytes: Of its files.
        problem: Why it cannot be loaded; None if nothing is known against it.
    """

    name: str
    kind: str
    language: str | None
    megabytes: float
    problem: str | None = None


def models_at_hand() -> list[ModelAtHand]:
    """Recognisers in the package, in a checkout, in the folder that `KIKITORI_PARTS` names and in the hub's cache."""
    found: dict[str, ModelAtHand] = {}
    for name, folder in _folders():
        if name not in found and (model := describe(name, folder)) is not None:
            found[name] = model
    return [*found.values()]


def describe(name: str, folder: Path) -> ModelAtHand | None:
    """A folder as a recogniser; None if it holds something else."""
    try:
        config = read_json(folder, "config.json")
        kind = _kind(folder, config)
        if kind is None:
            return None
        if decoders_in(folder).get("speech_llm", folder) != folder:
            kind = f"{kind}, and a speech LLM (--decoder)"
        language = _language(folder, config)
    except KikitoriError as error:
        return ModelAtHand(name, "unknown", None, _megabytes(folder), str(error))
    problem = None
    if missing := [base for base in base_names(config) if not Path(find_base(base, folder)).is_dir()]:
        problem = f"needs {' and '.join(missing)}, from the hub or in the folder that {PARTS} names"
    return ModelAtHand(name, kind, language, _megabytes(folder), problem)


def _folders() -> Iterator[tuple[str, Path]]:
    for folder in (loading.BUNDLED.parent, loading.CHECKOUT):
        yield from ((each.name, each) for each in _models_in(folder))
    if parts := os.environ.get(PARTS):
        yield from ((str(each), each) for each in _models_in(Path(parts)))
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        for revision in repository.revisions:
            if repository.repo_type == "model" and (revision.snapshot_path / "config.json").is_file():
                yield repository.repo_id, revision.snapshot_path


def _models_in(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/config.json"))


def _kind(folder: Path, config: dict[str, Any]) -> str | None:
    if (family := family_of(folder, config)) is not None:
        return family.name
    match str(config.get("model_type")):
        case ModelType.ACOUSTIC_MODEL if BASE in config:
            return f"{base_names(config)[0].rpartition('/')[2]} with CTC heads"
        case ModelType.ACOUSTIC_MODEL:
            return "acoustic model"
        case ModelType.SPEECH_LLM:
            return "speech LLM"
        case ModelType.NUE_ASR:
            return "Nue-ASR"
    return None


def _language(folder: Path, config: dict[str, Any]) -> str | None:
    if family_of(folder, config) is not None:
        return None
    return read_trained_on(folder).language


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
