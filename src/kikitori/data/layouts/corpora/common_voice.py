"""Common Voice's layout: `clips/`, and tables such as `train.tsv`, with `clip_durations.tsv` in newer releases."""

from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, number, table_rows
from kikitori.errors import DataError

SPLITS = ("train", "dev", "test")
_EXTRA = ("age", "gender", "accents", "variant", "sentence_domain")
_MILLISECONDS = "duration[ms]"


def evidence(source: Path) -> str | None:
    """`clips/` beside one of the tables, or one of its tables."""
    folder = source.parent if source.suffix == ".tsv" else source
    return "clips" if (folder / "clips").is_dir() and _tables(source) else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The rows of `train.tsv`, `dev.tsv` and `test.tsv` of a language's folder, or of the table that is named.

    Raises:
        DataError: A table has other columns, or a row is broken.
    """
    folder = source.parent if source.suffix == ".tsv" else source
    durations = _durations(folder / "clip_durations.tsv")
    for table in _tables(source):
        for where, row in table_rows(table, "\t", quoted=False):  # sentences hold single quotation marks
            if not row.keys() >= {"path", "sentence"}:
                raise DataError("no columns path and sentence", where=table, remedy="name a table of Common Voice")
            name = row["path"] if row["path"].endswith((".mp3", ".wav", ".flac")) else row["path"] + ".mp3"
            yield SourceRow(
                utt_id=Path(name).stem,
                audio=folder / "clips" / Path(name).name,
                text=row["sentence"],
                duration=durations.get(Path(name).name),
                speaker=row.get("client_id") or None,
                language=row.get("locale") or None,
                split=table.stem,
                extra={key: row[key] for key in _EXTRA if row.get(key)},
                where=where,
            )


def _tables(source: Path) -> list[Path]:
    named = [source] if source.suffix == ".tsv" else [source / f"{split}.tsv" for split in SPLITS]
    return [table for table in named if table.is_file()]


def _durations(path: Path) -> dict[str, float]:
    """Seconds by the names of clips, if the release tells them."""
    if not path.is_file():
        return {}
    return {
        row["clip"]: number(row[_MILLISECONDS], where) / 1000.0
        for where, row in table_rows(path, "\t", quoted=False)
        if "clip" in row and _MILLISECONDS in row
    }
