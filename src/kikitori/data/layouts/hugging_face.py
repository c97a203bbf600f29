"""Data sets of Hugging Face, from local copies: what `save_to_disk` wrote, or parquet files, with a column of audio.

The bytes of the audio files are taken as they are, nothing is decoded. Loquacious, ReazonSpeech, the sets of the Open
ASR Leaderboard and whatever else the hub keeps as parquet are read by the names of their columns. `split` is the name
of the split's folder or file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from kikitori.data.layouts.base import (
    ID,
    LANGUAGE,
    SPEAKER,
    Columns,
    LeaveOut,
    SourceRow,
    audio_and_text,
    column,
)
from kikitori.data.layouts.stored import Stored, held
from kikitori.errors import DataError
from kikitori.io.extras import require

AUDIO = ("audio", "wav")
BATCH = 16  # rows that are in memory at a time; a row may be minutes of audio
_SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+")


def evidence(source: Path) -> str | None:
    """`dataset_dict.json`, `state.json`, or parquet files."""
    for name in ("dataset_dict.json", "state.json"):
        if (source / name).is_file():
            return name
    return "*.parquet" if _parquets(source) else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:
    """The rows of all splits.

    Raises:
        ConfigError: The package `pyarrow` is not installed.
        DataError: There is no column of audio, or a file is damaged.
    """
    require("pyarrow", "data sets of Hugging Face need", where=source)
    for path, split in _files(source):
        yield from rows_of(path, split, columns, leave_out)


def _parquets(source: Path) -> list[Path]:
    found = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    return [path for path in found if path.suffix == ".parquet" and path.is_file()]


def _files(source: Path) -> Iterator[tuple[Path, str | None]]:
    """Files of rows, with the names of their splits."""
    if (source / "dataset_dict.json").is_file():
        for split in _names(source / "dataset_dict.json", "splits"):
            yield from ((path, split) for path in _saved(source / Path(split).name))
    elif (source / "state.json").is_file():
        own = _json(source / "state.json").get("_split")
        yield from ((path, own if isinstance(own, str) else None) for path in _saved(source))
    else:
        for path in _parquets(source):
            yield path, None if path == source and not _SHARD.fullmatch(path.stem) else split_of(path)


def _saved(folder: Path) -> Iterator[Path]:
    return (folder / Path(name).name for name in _names(folder / "state.json", "_data_files"))


def _names(path: Path, key: str) -> list[str]:
    """The names that a list of a JSON file holds, or those of the files in it."""
    values = _json(path).get(key)
    listed = values if isinstance(values, list) else []
    found = [each.get("filename") if isinstance(each, dict) else each for each in listed]
    names = [name for name in found if isinstance(name, str)]
    if not names or len(names) < len(found):
        raise DataError(f"'{key}' names nothing", where=path, remedy="copy the data set again")
    return names


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy="copy the data set again") from None
    if not isinstance(values, dict):
        raise DataError("is no JSON object", where=path, remedy="copy the data set again")
    return values


def split_of(path: PurePath) -> str:
    """The split that the name of a parquet file tells, or that of its folder where files are only numbered."""
    if shard := _SHARD.fullmatch(path.stem):
        return shard["split"]
    return path.parent.name if path.stem.isdecimal() and path.parent.name else path.stem


def rows_of(path: Path, split: str | None, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:
    """The rows of one file, all of one split.

    Raises:
        DataError: There is no column of audio, or the file is damaged.
    """
    import pyarrow

    try:
        for first, batch, base in _batches(path):
            names = batch.schema.names
            audio, text = audio_and_text(names, columns, AUDIO, path)
            usual = [column(names, others) or "" for others in (ID, SPEAKER, LANGUAGE)]
            for place, row in enumerate(_plain_rows(batch, {audio, text or "", *usual})):
                number = first + place
                where, sound = f"{path}:{number}", _sound(row[audio])
                if sound is None:
                    leave_out(f"{where}: no audio in column {audio!r}")
                    continue
                name, data = sound
                utt_id, speaker, language = (row.get(each) for each in usual)
                yield SourceRow(
                    utt_id=str(utt_id) if utt_id not in (None, "") else Path(name).stem or f"{path.stem}-{number}",
                    audio=Path(name) if data is not None else path.parent / name,
                    data=None if data is None else _stored(path, data, batch.column(audio), place, base),
                    text=None if text is None or row[text] is None else str(row[text]),
                    speaker=None if speaker is None else str(speaker),
                    language=language if isinstance(language, str) else None,
                    split=split,
                    extra={
                        key: value
                        for key, value in row.items()
                        if key not in (audio, text, *usual) and value is not None
                    },
                    where=where,
                )
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"cannot be read ({reason})", where=path, remedy="copy it again") from None


def _batches(path: Path) -> Iterator[tuple[int, Any, int | None]]:
    """A few rows at a time, with the number of the first of them, from 1, and where the file is in memory, if it is."""
    import pyarrow
    from pyarrow import parquet

    done = 1
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield done, batch, None
                done += batch.num_rows
        return
    with pyarrow.memory_map(str(path)) as file:
        base = file.read_buffer(1).address
        file.seek(0)
        stream = pyarrow.ipc.open_stream(file)
        for whole in stream:
            for start in range(0, whole.num_rows, BATCH):
                yield done + start, whole.slice(start, BATCH), base
            done += whole.num_rows


def _stored(path: Path, data: bytes, column: Any, place: int, base: int | None) -> Stored:
    """Where the bytes of an audio file lie in a file that is mapped to memory; held where that has them otherwise."""
    from pyarrow import types

    if base is None:
        return held(path, data)
    if types.is_struct(column.type):
        column = column.flatten()[column.type.get_field_index("bytes")]
    _, offsets, values = column.buffers()
    kind = np.int64 if types.is_large_binary(column.type) else np.int32
    start = values.address - base + int(np.frombuffer(offsets, kind)[column.offset + place])
    inside = 0 <= start <= path.stat().st_size - len(data)  # else they were compressed
    return Stored(path, start, len(data)) if inside else held(path, data)


def _sound(value: Any) -> tuple[str, bytes | None] | None:
    """The name of an audio file, and its bytes if they are here: of `Audio(decode=False)`, or a path or bytes alone."""
    match value:
        case {"bytes": bytes(data), **rest} if data:
            return str(rest.get("path") or ""), data
        case {"path": str(name)} | str(name) if name:
            return name, None
        case bytes(data) if data:
            return "", data
    return None


def _plain_rows(batch: Any, wanted: set[str]) -> list[dict[str, Any]]:
    """The rows of a batch by column: the wanted ones, and those that JSON can write; numbers of classes as names."""
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    plain = [each.name for each in batch.schema if each.name in wanted or any(test(each.type) for test in tests)]
    rows: list[dict[str, Any]] = batch.select(plain).to_pylist()
    for name, classes in _class_names(batch.schema.metadata).items():
        for row in rows:
            value = row.get(name)
            row[name] = classes[value] if isinstance(value, int) and 0 <= value < len(classes) else None
    return rows


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes of columns that are numbers of them, as `datasets` writes them into a file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
