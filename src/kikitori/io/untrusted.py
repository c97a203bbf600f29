"""Files that others made: plain files inside their folder, and JSON that is small and means one thing.

Everything that reads a model folder asks here first, because transformers follows links, waits for pipes and digests
JSON of any size.
"""

import json
import math
import stat
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError

MAX_JSON_BYTES = 4 * 2**20
MAX_JSON_DEPTH = 64
MAX_COMMAS = 200_000
MAX_VOCABULARY_BYTES = 64 * 2**20  # tokenizer.json of 262k tokens has 33 MB
MAX_VOCABULARY_COMMAS, MAX_VOCABULARY_LISTS = 2_000_000, 800_000  # and 1.4 million commas and 515 thousand lists
INDEX = "model.safetensors.index.json"
SETTINGS = {
    INDEX,
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
}
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"}
FILE_SUFFIXES = {".json", ".yaml", ".safetensors", ".model", ".txt", ".jinja"}
TEMPLATES = "additional_chat_templates"  # the one subfolder that transformers looks into


def check_files(folder: Path) -> None:
    """Refuses what is no plain file of a sane size: links that lead out of the folder, pipes, devices.

    Links into the blobs of the Hugging Face cache, of which its model folders consist, are fine.

    Raises:
        ModelError: With the file at fault.
    """
    roots = _roots(folder)
    try:
        entries = sorted(folder.iterdir())
        if (folder / TEMPLATES).is_dir():
            entries += sorted((folder / TEMPLATES).iterdir())
        for path in entries:
            _check_file(path, folder, roots)
    except OSError as error:
        raise _bad(folder, f"cannot be read ({error.strerror})", "check its permissions") from None


def read_object(file: Path, *, vocabulary: bool = False) -> dict[str, Any]:
    """Reads a JSON object with distinct keys and finite numbers; a `vocabulary` may be larger, and is not looked into.

    Raises:
        ModelError: It is missing or larger than it should be, or no such object.
    """
    folder, name = file.parent, file.name
    if not file.is_file():
        raise _bad(folder, f"{name} is missing")
    _check_size(file, MAX_VOCABULARY_BYTES if vocabulary else MAX_JSON_BYTES)
    try:
        content = file.read_bytes()
        commas, lists = (MAX_VOCABULARY_COMMAS, MAX_VOCABULARY_LISTS) if vocabulary else (MAX_COMMAS, MAX_COMMAS)
        if content.count(b",") > commas or content.count(b"[") > lists:
            raise _bad(folder, f"{name} holds too many values")
        values = json.loads(content.decode("utf-8"), object_pairs_hook=None if vocabulary else distinct)
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(folder, f"{name} is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise _bad(folder, f"{name} is not a JSON object")
    if not vocabulary:
        _check_values(values, f"{name}:", folder)
    return values


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a mapping, for `json.loads`.

    Raises:
        ValueError: A key comes twice: readers disagree on which one counts.
    """
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key[:80]!r} comes twice")
        values[key] = value
    return values


def _roots(folder: Path) -> list[Path]:
    """Where the files of a folder may lie."""
    folder = folder.resolve()
    # A model may hold others: its base, a second decoder and that one's LLM.
    levels = (folder, *folder.parents[:2])
    snapshot = next((each for each in levels if each.parent.name == "snapshots"), None)
    if snapshot is None:
        return [folder]
    repository = snapshot.parent.parent
    roots = [folder, repository / "blobs"]
    # Of the Hugging Face cache, whose repositories may share blobs.
    return [*roots, repository.parent / "blobs"] if repository.name.startswith("models--") else roots


def _check_file(path: Path, folder: Path, roots: list[Path]) -> None:
    if path.is_symlink():
        _check_link(path, folder, roots)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and (path.suffix in FILE_SUFFIXES or not stat.S_ISDIR(mode)):
        raise _bad(folder, f"{path.name} is missing, what has its name is no file")
    limit = _limit(path)
    if limit is not None:
        _check_size(path, limit)


def _check_link(path: Path, folder: Path, roots: list[Path]) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
        raise _bad(folder, f"{path.name} is missing, it is a link to nothing") from None
    if not any(target.is_relative_to(root) for root in roots):
        raise _bad(folder, f"{path.name} is a link that leads out of the folder", "put the file itself there")


def _limit(path: Path) -> int | None:
    if path.name in VOCABULARIES or path.suffix == ".model":
        return MAX_VOCABULARY_BYTES
    return MAX_JSON_BYTES if path.name in SETTINGS or path.suffix in (".yaml", ".jinja") else None


def _check_size(path: Path, limit: int) -> None:
    if path.stat().st_size > limit:
        raise _bad(path.parent, f"{path.name} is larger than {limit >> 20} MB")


def _check_values(values: object, key: str, folder: Path, depth: int = 0) -> None:
    if depth > MAX_JSON_DEPTH:
        raise _bad(folder, f"{key} is nested more than {MAX_JSON_DEPTH} levels deep")
    match values:
        case dict():
            for name, value in values.items():
                _check_values(value, f"{key[:200]} {name}", folder, depth + 1)
        case list():
            for value in values:
                _check_values(value, key, folder, depth + 1)
        case float() if not math.isfinite(values):
            raise _bad(folder, f"{key} is no finite number")


def _bad(folder: Path, what: str, remedy: str = "copy the folder again") -> ModelError:
    return ModelError(what, where=folder, remedy=remedy)
