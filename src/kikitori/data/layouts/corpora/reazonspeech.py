"""ReazonSpeech as it is released: a table such as `tiny.tsv` (path, tab, text) and tars of FLAC files beside it.

Tars that were unpacked beside the table are fine too. Through Hugging Face's `datasets` it is a data set like others.
"""

from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, text_lines
from kikitori.data.layouts.tars import audio_members, tars_below
from kikitori.errors import DataError


def evidence(source: Path) -> str | None:
    """A table without heading, whose first field is a FLAC file."""
    found = _tables(source)
    return found[0].name if found else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The rows of the tables that have audio, in the order of the tars.

    Raises:
        DataError: A line has no tab, a path comes twice, or a tar is damaged.
    """
    folder = source if source.is_dir() else source.parent
    texts = _texts(_tables(source))
    tars = tars_below(folder)
    if not tars:
        for name, (where, text) in texts.items():
            yield SourceRow(name, folder / name, text=text, language="ja", where=where)
        return
    for tar in tars:
        for member, data in audio_members(tar):
            found = texts.pop(member.lstrip("./"), None)
            if found is not None:
                where, text = found
                yield SourceRow(member, Path(member), data=data, text=text, language="ja", where=where)
    for name, (where, _) in texts.items():
        leave_out(f"{where}: {name} is in none of the tars")


def _tables(source: Path) -> list[Path]:
    files = [source] if source.is_file() else sorted(source.glob("*.tsv")) if source.is_dir() else []
    return [path for path in files if path.suffix == ".tsv" and path.is_file() and _begins(path)]


def _begins(path: Path) -> bool:
    with path.open("rb") as file:
        name, tab, _ = file.readline(10_000).partition(b"\t")
    return bool(tab) and name.strip().endswith(b".flac")


def _texts(tables: list[Path]) -> dict[str, tuple[str, str]]:
    texts: dict[str, tuple[str, str]] = {}
    for table in tables:
        for where, line in text_lines(table):
            name, tab, text = line.partition("\t")
            if not tab:
                raise DataError("no tab behind a path", where=where, remedy="copy the file again")
            if texts.setdefault(name.strip(), (where, text.strip()))[1] != text.strip():
                raise DataError(f"'{name}' has two texts", where=where, remedy="name one of the tables")
    return texts
