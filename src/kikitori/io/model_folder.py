"""What lies in a model folder beside the network: the settings of its searches, and what these take from there.

Here alone stand the names of these files, and who copies a folder, digests it or looks something up in it asks here.
Settings may name other files within the folder; those belong to it as well. A run folder stands for the model in it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError, ModelError
from kikitori.io.config import base_of, merge_yaml
from kikitori.io.untrusted import check_files, read_object

DECODING, DRAFT = "decoding.yaml", "draft.yaml"
"""The folder's own search, and the one whose drafts its LLM reads beside the speech."""
LM, PRIOR = "lm", "prior.safetensors"
"""Folder of the language model over the recogniser's labels; the prior of these labels."""
LEXICON, WORD_NGRAM, PHONE_PRIOR = "lexicon.tsv.xz", "words.ngram", "phone_prior.safetensors"
"""Pronunciations, the n-gram over words, and the prior of the phones."""
WORDS = "words.yaml"
"""How late labels are written, and how sure words are (`kikitori.align.calibration`)."""
CTC_UNITS = "ctc_units"
"""Folder of the label units of CTC heads that write others than the decoder."""
SEARCH_FILES = (DECODING, LM, PRIOR, LEXICON, WORD_NGRAM, PHONE_PRIOR, DRAFT, WORDS)
OF_HEADS = (LM, PRIOR, LEXICON, WORD_NGRAM, PHONE_PRIOR)
"""Those that belong to CTC and phone heads, whichever decoder stands beside them."""
CONFIG, BASE = "config.json", "base"
"""The network's configuration, and its key that names the base of what is no whole model."""
SPEECH_LLM, AROUND = "speech_llm", ".."
"""The folder within a recogniser's that holds a second decoder, and how it names its base: the folder around it."""
RUN_FILES = ("recipe.yaml", "environment.json")
"""What every training writes at its start, and a model folder has not."""


def model_folder(path_or_id: str | Path) -> str:
    """A run folder stands for the model it exported; all else stays as it is.

    Raises:
        ModelError: It is the folder of a run that has no model, with what to do instead.
    """
    folder = Path(path_or_id)
    if (folder / "model").is_dir():
        return str(folder / "model")
    if not (folder / CONFIG).is_file() and all((folder / name).is_file() for name in RUN_FILES):
        if (folder / "adapter").is_dir():
            raise ModelError("it holds an adapter", where=folder, remedy=f"name its base, with --adapter {folder}")
        raise ModelError(
            "the training has not finished, so there is no model yet",
            where=folder,
            remedy=f"go on with kikitori train {folder / RUN_FILES[0]} -o {folder} --resume; for the model of its last "
            "checkpoint, do so in a copy of the folder, with run.epochs=1",
        )
    return str(path_or_id)


def around(folder: Path) -> Path | None:
    """The folder of the recogniser whose encoder and heads a second decoder shares; None for one that stands alone.

    Raises:
        ModelError: There is a `config.json` that cannot be read.
    """
    if not (folder / CONFIG).is_file():
        return None
    base = read_object(folder / CONFIG).get(BASE)
    return folder.resolve().parent if isinstance(base, dict) and base.get("name") == AROUND else None


def heads_file(folder: Path, name: str) -> Path:
    """Where one of `OF_HEADS` lies: in a recogniser's folder or, where that of a second decoder has none, around it.

    Raises:
        ModelError: See `around`.
    """
    outer = None if (folder / name).exists() else around(folder)
    return (outer or folder) / name


class ModelType(StrEnum):
    """Recognisers by the `model_type` of `config.json`; beside these there are Whispers."""

    ACOUSTIC_MODEL = "kikitori_acoustic_model"
    SPEECH_LLM = "kikitori_speech_llm"
    NUE_ASR = "nue_asr"


def settings_file(folder: Path, name: str) -> Path | None:
    """`decoding.yaml`, `draft.yaml` or `words.yaml` of a model folder; None where there is none.

    Raises:
        ConfigError: It cannot be read.
        ModelError: The folder holds what is no plain file, or the settings have a base outside of it.
    """
    file = folder / name
    if not file.is_file():
        return None
    check_files(folder)
    if (base := base_of(file)) is not None:
        resolve(folder, base, name)
    return file


def resolve(folder: Path, path: str, name: str) -> Path:
    """A path that the settings `name` of a folder give, as the absolute path of what lies there.

    Raises:
        ModelError: It leads out of the folder, or to nothing.
    """
    found = _within(folder, path)
    if found is None:
        raise ModelError(
            f"it names {path!r}, which is not in the folder",
            where=folder / name,
            remedy="name a path within the folder, or give the search with --decoding",
        )
    return found


def search_files(folder: Path) -> list[Path]:
    """Files and folders that searches find in a model folder, relative to it: the usual ones, then named ones.

    Raises:
        ModelError: The folder holds what is no plain file.
    """
    found = [Path(name) for name in SEARCH_FILES if (folder / name).exists()]
    for name in (DECODING, DRAFT):
        for path in _named(folder, name):
            if not any(path.is_relative_to(part) for part in found):
                found.append(path)
    return found


def copy_search_files(folder: Path, target: Path) -> None:
    """Copies what searches find in a model folder into another one, which keeps what it has already.

    Raises:
        ModelError: The folder holds what is no plain file.
    """
    for part, source in _found(folder).items():
        copied = target / part
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copied, dirs_exist_ok=True)
        elif not copied.exists():
            shutil.copy(source, copied)


def search_files_digest(folder: Path) -> str:
    """SHA-256 of what searches find in a model folder, but for `decoding.yaml`, whose settings others can replace.

    Raises:
        ModelError: The folder holds what is no plain file.
    """
    digest = hashlib.sha256()
    for path in (path for part, path in _found(folder).items() if part != Path(DECODING)):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as content:
                    digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def forget_places(directory: Path) -> None:
    """Takes the paths from which networks were loaded out of `config.json`, where transformers keeps them.

    Raises:
        OSError: The folder cannot be written.
    """
    file = directory / CONFIG
    values = _without_places(json.loads(file.read_bytes()))
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _found(folder: Path) -> dict[Path, Path]:
    """What searches find, by its name in the folder; for a second decoder also what belongs to the heads around it."""
    own = {part: folder / part for part in search_files(folder)}
    heads = {Path(name): heads_file(folder, name) for name in OF_HEADS}
    return own | {part: path for part, path in heads.items() if part not in own and path.exists()}


def _without_places(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_places(value) for key, value in values.items() if key != "_name_or_path"}
    return values


def _named(folder: Path, name: str) -> Iterator[Path]:
    """What settings name within the folder; nothing where they cannot be read, which their search will say."""
    try:
        file = settings_file(folder, name)
        texts = [] if file is None else [base_of(file), *_texts(merge_yaml(file))]
    except ConfigError:
        return
    for text in texts:
        path = None if text is None else _within(folder, text)
        if path is not None and path != folder.resolve():
            yield path.relative_to(folder.resolve())


def _within(folder: Path, path: str) -> Path | None:
    try:
        found = (folder / path).resolve()
        return found if found.is_relative_to(folder.resolve()) and found.exists() else None
    except (OSError, ValueError):  # too long, or with a null byte: no name of a file
        return None


def _texts(values: object) -> Iterator[str]:
    match values:
        case str():
            yield values
        case dict() | list():
            for value in values.values() if isinstance(values, dict) else values:
                yield from _texts(value)
