"""Tables with a heading (CSV, TSV): a row an utterance, columns by their usual names or as the user names them.

Of `audio, text, id, duration, offset, speaker, language, split` and their usual other names, `audio` alone has to be
there; `duration` and `offset` are seconds. Other columns are carried along.
"""

from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import (
    AUDIO,
    ID,
    LANGUAGE,
    SPEAKER,
    Columns,
    LeaveOut,
    SourceRow,
    audio_and_text,
    column,
    local_file,
    number,
    table_rows,
)
from kikitori.errors import DataError

_DELIMITERS = "\t;,|"


def evidence(source: Path) -> str | None:
    """A file whose name ends with `.csv` or `.tsv`."""
    return source.suffix if source.is_file() and source.suffix.lower() in (".csv", ".tsv") else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:
    """The rows of a table; its audio lies where we are, or in its folder.

    Raises:
        DataError: There is no column of audio, or a row is broken.
    """
    rows = table_rows(source, _delimiter(source), quoted=True)
    for number_of_row, (where, row) in enumerate(rows):
        if number_of_row == 0:
            names = list(row)
            audio, text = audio_and_text(names, columns, AUDIO, source)
            usual = {name: column(names, others) for name, others in _OTHERS.items()}
            taken = {audio, text, *usual.values()}
        if not row[audio]:
            leave_out(f"{where}: no audio")
            continue
        value = {name: row[found] if found else "" for name, found in usual.items()}
        yield SourceRow(
            utt_id=value["id"] or row[audio],
            audio=local_file(row[audio], source.parent),
            text=row[text] if text else None,
            offset=number(value["offset"] or "0", where),
            duration=number(value["duration"], where) if value["duration"] else None,
            speaker=value["speaker"] or None,
            language=value["language"] or None,
            split=value["split"] or None,
            extra={key: found for key, found in row.items() if key not in taken and found},
            where=where,
        )


def _delimiter(path: Path) -> str:
    """The one that the heading has most of."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            heading = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot be read as UTF-8 text", where=path, remedy="check the file") from error
    return max(_DELIMITERS, key=heading.count)


_OTHERS = {
    "id": ID,
    "duration": ("duration",),
    "offset": ("offset",),
    "speaker": SPEAKER,
    "language": LANGUAGE,
    "split": ("split",),
}
