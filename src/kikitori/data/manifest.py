"""Manifests: JSON lines, one utterance each (design: `audio_filepath`, `duration`, `text`, and optional keys).

A broken line is named with its number; whether it stops the reading is the caller's choice.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kikitori.errors import DataError
from kikitori.io.files import describe_folder
from kikitori.types import Utterance

OnError = Literal["stop", "skip"]
BYTES = "bytes"
"""Key of rows whose audio file lies inside another: its first byte there, and how many it has."""
KNOWN_KEYS = frozenset(
    {"audio_filepath", "duration", "text", "offset", "id", "language", "lang", "split", "speaker", "prompt", BYTES}
)
RECOGNIZED = "recognized"
"""Key of rows whose text a recogniser wrote: to train on, and no reference for anything."""
BOM = "\ufeff".encode()
_raw_decode = json.JSONDecoder().raw_decode
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_LINE_CHARS = 1_000_000
MAX_SECONDS = 1e9
MAX_BYTE = 2**62


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
    path, problems = Path(path), list[str]()
    rows = manifest_rows(path, on_error, problems)
    utterances = tuple(row for _, row in rows if split is None or row.split == split)
    if not utterances:
        raise no_rows(path, split)
    return Manifest(utterances, tuple(problems))


def manifest_rows(path: Path, on_error: OnError, problems: list[str]) -> Iterator[tuple[int, Utterance]]:
    """The rows of a manifest as they come, each with the byte at which its line begins; `problems` gets broken lines.

    Raises:
        DataError: The file is missing or (with `stop`) has a broken line.
    """
    if path.is_dir():
        found, remedy = describe_folder(path)
        raise DataError(f"is no manifest: it {found}", where=path, remedy=remedy)
    if not path.is_file():
        raise DataError("no such manifest", where=path, remedy="check the path or data_root")
    with path.open("rb") as lines:
        end = 0
        for number, line in enumerate(lines, start=1):
            place, end = end, end + len(line)
            if line.isspace() or (line.startswith(BOM) and line.strip() == BOM):
                continue
            try:
                yield place, parse_row(line, path.parent)
            except ValueError as error:
                if on_error == "stop":
                    raise DataError(str(error), where=f"{path}:{number}", remedy="mend or delete the line") from None
                problems.append(f"{path}:{number}: {error}")


def no_rows(path: Path, split: str | None) -> DataError:
    """What is said of a manifest without a row that can be used."""
    what = "no usable row" if split is None else f"no usable row of split '{split}'"
    return DataError(what, where=path, remedy="check the manifest" if split is None else "check its name")


def parse_source(source: str) -> tuple[Path, str | None]:
    """The manifest and the split that `MANIFEST` or `MANIFEST:SPLIT` names."""
    path, colon, split = source.rpartition(":")
    return (Path(source), None) if not colon or Path(source).exists() else (Path(path), split)


def is_recognized(utterance: Utterance) -> bool:
    """Whether a recogniser wrote the text of a row, as `kikitori data pseudo-label` marks it."""
    return utterance.extra.get(RECOGNIZED) is True


def with_reference(utterances: Sequence[Utterance], key: str) -> list[Utterance]:
    """Utterances whose text is the value of a key of their manifest; `text` leaves them as they are.

    Raises:
        DataError: A row has no such text.
    """
    if key == "text":
        return list(utterances)
    found = []
    for utterance in utterances:
        text = utterance.extra.get(key)
        if not isinstance(text, str):
            raise DataError(f"has no text '{key}'", where=utterance.utt_id, remedy="name another --reference")
        found.append(replace(utterance, text=text))
    return found


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def parse_row(line: bytes, folder: Path) -> Utterance:
    """The utterance of a line of a manifest in that folder.

    Raises:
        ValueError: It is none, and why.
    """
    line = line.removeprefix(BOM).lstrip()  # joined files have it at other lines than the first too
    if len(line) > MAX_LINE_CHARS:
        raise ValueError("line longer than 1 MB")
    try:
        text = line.decode("utf-8", "surrogatepass")
        row, end = _raw_decode(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if text[end:].strip():
        raise ValueError(f"not JSON (more behind it, at column {end + 1})")
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
        audio_filepath=_file(folder, audio),
        duration=duration,
        text=_typed(row, "text", str),
        offset=offset or 0.0,
        utt_id=audio if row.get("id") in (None, "") else _id(row["id"]),
        language=_typed(row, "language", str) or _typed(row, "lang", str),
        split=_typed(row, "split", str),
        speaker=_name(row, "speaker"),
        byte_range=_byte_range(row) if BYTES in row else None,
        extra={} if KNOWN_KEYS.issuperset(row) else {k: row[k] for k in row if k not in KNOWN_KEYS},
    )


@lru_cache(maxsize=4096)
def _file(folder: Path, name: str) -> Path:
    """A path, made once for the rows of a long recording."""
    return folder / name


def _typed(row: dict[str, Any], key: str, kind: type[str]) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"'{key}' must be a string, not {value!r}"[:200])
    if value is not None and not value.isascii() and _SURROGATE.search(value):
        raise ValueError(f"'{key}' holds half a character (a lone surrogate)")
    return value


def _id(value: object) -> str:
    written = str(value)
    if not written.isascii() and _SURROGATE.search(written):
        raise ValueError("'id' holds half a character (a lone surrogate)")
    return written


def _name(row: dict[str, Any], key: str) -> str | None:
    """A name, which may be a number; tables that lack some names write 92 as 92.0, and NaN for those."""
    value = row.get(key)
    if isinstance(value, float):
        return None if math.isnan(value) else f"{value:g}" if value.is_integer() else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _typed(row, key, str)


def _byte_range(row: dict[str, Any]) -> tuple[int, int] | None:
    match row[BYTES]:
        case None:
            return None
        case [int(start), int(size)] if 0 <= start < MAX_BYTE and 0 < size < MAX_BYTE:
            return start, size
    raise ValueError(
        f"'{BYTES}' must be the first byte of the audio file and how many it has, not {row[BYTES]!r}"[:200]
    )


def _seconds(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    # The upper bound also keeps integers of hundreds of digits from float().
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"'{key}' must be a number of seconds, not {value!r}"[:200])
    return float(value)
