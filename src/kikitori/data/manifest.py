"""Manifests: JSON lines, one utterance each (design: `audio_filepath`, `duration`, `text`, and optional keys).

A broken line is named with its number; whether it stops the reading is the caller's choice.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kikitori.errors import DataError
from kikitori.io.files import describe_folder
from kikitori.types import Utterance

OnError = Literal["stop", "skip"]
KNOWN_KEYS = frozenset(
    {"audio_filepath", "duration", "text", "offset", "id", "language", "lang", "split", "speaker", "prompt"}
)
RECOGNIZED = "recognized"
"""Key of rows whose text a recogniser wrote: to train on, and no reference for anything."""
BOM = "\ufeff".encode()
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_LINE_CHARS = 1_000_000
MAX_SECONDS = 1e9
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Manifest:
    """Utterances of one manifest and the lines that could not be used (with the reason)."""

    utterances: tuple[Utterance, ...]
    problems: tuple[str, ...] = ()


def read_manifest(path: Path | str, *, split: str | None = None, on_error: OnError = "stop") -> Manifest:
    """Reads the rows of a JSONL manifest, those of a split or all; audio paths are relative to the manifest's folder.

    `stop` raises at the first broken line, `skip` collects it in `problems`.

    Raises:
        DataError: The file is missing, holds no usable row, or (with `stop`) has a broken line.
    """
    path = Path(path)
    if path.is_dir():
        found, remedy = describe_folder(path)
        raise DataError(f"is no manifest: it {found}", where=path, remedy=remedy)
    if not path.is_file():
        raise DataError("no such manifest", where=path, remedy="check the path or data_root")
    utterances, problems = [], []
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.removeprefix(BOM)  # joined files have it at other lines too
            if not line.strip():
                continue
            try:
                utterance = _parse(line, path.parent)
            except ValueError as error:
                problem = f"{path}:{number}: {error}"
                if on_error == "stop":
                    raise DataError(str(error), where=f"{path}:{number}", remedy="mend or delete the line") from None
                problems.append(problem)
                continue
            if split is None or utterance.split == split:
                utterances.append(utterance)
    if not utterances:
        what = "no usable row" if split is None else f"no usable row of split '{split}'"
        raise DataError(what, where=path, remedy="check the manifest" if split is None else "check its name")
    return Manifest(tuple(utterances), tuple(problems))


def parse_source(source: str) -> tuple[Path, str | None]:
    """The manifest and the split that `MANIFEST` or `MANIFEST:SPLIT` names."""
    path, colon, split = source.rpartition(":")
    return (Path(source), None) if not colon or Path(source).exists() else (Path(path), split)


def is_recognized(utterance: Utterance) -> bool:
    """Whether a recogniser wrote the text of a row, as `kikitori data pseudo-label` marks it."""
    return utterance.extra.get(RECOGNIZED) is True


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def _parse(line: bytes, folder: Path) -> Utterance:
    if len(line) > MAX_LINE_CHARS:
        raise ValueError("line longer than 1 MB")
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    audio = _typed(row, "audio_filepath", str)
    if not audio:
        raise ValueError("'audio_filepath' is missing")
    if row.get("prompt") is not None:
        raise ValueError("'prompt' is not supported, an LLM's prompt is that of its recipe for all rows")
    duration, offset = _seconds(row, "duration"), _seconds(row, "offset")
    if duration is None:
        raise ValueError("'duration' is missing")
    return Utterance(
        audio_filepath=folder / audio,
        duration=duration,
        text=_typed(row, "text", str),
        offset=offset or 0.0,
        utt_id=audio if row.get("id") in (None, "") else str(row["id"]),
        language=_typed(row, "language", str) or _typed(row, "lang", str),
        split=_typed(row, "split", str),
        speaker=_name(row, "speaker"),
        extra={key: value for key, value in row.items() if key not in KNOWN_KEYS},
    )


def _typed(row: dict[str, Any], key: str, kind: type[str]) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"'{key}' must be a string, not {value!r}"[:200])
    if value is not None and not value.isascii() and _SURROGATE.search(value):
        raise ValueError(f"'{key}' holds half a character (a lone surrogate)")
    return value


def _name(row: dict[str, Any], key: str) -> str | None:
    """A name, which may be a number; tables that lack some names write 92 as 92.0, and NaN for those."""
    value = row.get(key)
    if isinstance(value, float):
        return None if math.isnan(value) else f"{value:g}" if value.is_integer() else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _typed(row, key, str)


def _seconds(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    # The upper bound also keeps integers of hundreds of digits from float().
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"'{key}' must be a number of seconds, not {value!r}"[:200])
    return float(value)
