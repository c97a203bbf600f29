"""WebDataset's tars: files in a row whose paths are the same up to the first dot of their names are a sample.

Of a sample the audio file and `.txt` or `.json` are taken; of the JSON the usual names of text, speaker and language,
and what else is plain. Where the user names the text, it is taken from the JSON alone.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from kikitori.data.layouts.base import LANGUAGE, SPEAKER, TEXT, Columns, LeaveOut, SourceRow, column, number
from kikitori.data.layouts.stored import Stored
from kikitori.data.layouts.tars import is_tar, members, tars_below
from kikitori.errors import DataError
from kikitori.io.recordings import ENDINGS

_SAID = (".txt", ".json")


def evidence(source: Path) -> str | None:
    """A tar whose first sample has audio and text, or cannot be read, which reading will say."""
    tars = _tars(source)
    if not tars:
        return None
    try:
        _, files = next(_samples(tars[0]), ("", {}))
    except DataError:
        return tars[0].name
    return tars[0].name if ENDINGS & files.keys() and {*_SAID} & files.keys() else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:
    """The samples of all tars, in the order of the tars' names.

    Samples without audio, or without the text that the user names, are left out.

    Raises:
        DataError: A tar is damaged, or a text or JSON is none.
    """
    for tar in _tars(source):
        for key, files in _samples(tar):
            where = f"{tar}: {key}"
            audio = next((ending for ending in files if ending in ENDINGS), None)
            if audio is None:
                leave_out(f"{where}: no audio")
                continue
            known = _known(files[".json"].read(), where) if ".json" in files else {}
            if columns.text is not None and columns.text not in known:
                leave_out(f"{where}: its .json has no text {columns.text!r}")
                continue
            text, speaker, language = (
                column(known, names) for names in ((columns.text,) if columns.text else TEXT, SPEAKER, LANGUAGE)
            )
            said = known[text] if text else _text(files[".txt"].read(), where) if ".txt" in files else None
            yield SourceRow(
                utt_id=key,
                audio=Path(key + audio),
                data=files[audio],
                text=None if said is None else str(said),
                duration=None if known.get("duration") is None else number(known["duration"], where),
                speaker=str(known[speaker]) if speaker and known[speaker] is not None else None,
                language=known[language] if language and isinstance(known[language], str) else None,
                extra={
                    name: value for name, value in known.items() if name not in (text, speaker, language, "duration")
                },
                where=where,
            )


def _tars(source: Path) -> list[Path]:
    """The tars of a folder, unless its tables or cuts say what is in them."""
    if source.is_dir():
        if next(source.glob("*.tsv"), None) or next(source.glob("cuts.*.jsonl*"), None):
            return []
        return tars_below(source)
    return [source] if is_tar(source) else []


def _samples(tar: Path) -> Iterator[tuple[str, dict[str, Stored]]]:
    """Keys of samples, and their files by ending."""

    def split(name: str) -> tuple[str, str]:
        path = PurePosixPath(name)
        stem, dot, ending = path.name.partition(".")
        return (path.parent / stem).as_posix(), (dot + ending).lower()

    for key, files in groupby(members(tar), key=lambda member: split(member[0])[0]):
        yield key, {split(name)[1]: data for name, data in files}


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DataError("its .txt is no text in UTF-8", where=where, remedy="write the tar again") from None


def _known(data: bytes, where: str) -> dict[str, Any]:
    """The plain values of a JSON object."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its .json is none ({error})", where=where, remedy="write the tar again") from None
    if not isinstance(values, dict):
        raise DataError("its .json is no object", where=where, remedy="write the tar again")
    return {key: value for key, value in values.items() if isinstance(value, str | int | float | bool | None)}
