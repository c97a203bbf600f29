"""What readers of other layouts share: the rows that they give, what the user says of a data set, lines of text."""

import csv
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kikitori.data.layouts.stored import Stored
from kikitori.data.manifest import BOM, MAX_SECONDS
from kikitori.errors import DataError
from kikitori.io.files import open_compressed

LeaveOut = Callable[[str], None]
"""Is told of each row that cannot be taken: where it stands and why, in one line."""
MAX_LINE_BYTES = 16 * 2**20
AUDIO = ("audio", "wav", "audio_filepath", "audio_path", "path", "file", "file_name", "filename", "wav_filename")
TEXT = ("text", "sentence", "normalized_text", "transcript", "transcription", "wrd")
ID = ("id", "ID", "utt_id", "segment_id", "file_name", "name")
SPEAKER = ("speaker", "speaker_id", "spk_id", "client_id")
LANGUAGE = ("language", "lang", "locale")


@dataclass(frozen=True)
class SourceRow:
    """One utterance of a data set.

    Attributes:
        utt_id: Its name in the data set.
        audio: The audio file; with `data`, the name under which that may be written.
        data: The audio file, where it lies inside another file.
        text: What was said, as the data set writes it; None where it does not say.
        offset: Seconds from the start of the file.
        duration: Seconds; None where the data set does not say: to the end of the file.
        split: The data set's own name of the part, such as `dev-clean`.
        extra: What else is known, for the manifest to carry along.
        where: Its place for errors, such as `segments:12`.
    """

    utt_id: str
    audio: Path
    data: Stored | None = None
    text: str | None = None
    offset: float = 0.0
    duration: float | None = None
    speaker: str | None = None
    language: str | None = None
    split: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table the user names; None finds them by their usual names."""

    audio: str | None = None
    text: str | None = None


class Layout(Protocol):
    """A way to lay out a data set; modules of this folder are such."""

    def evidence(self, source: Path) -> str | None:
        """What of it lies at a path, such as `wav.scp`; None if it is not such a data set."""
        ...

    def read(self, source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:
        """The utterances, in the order of the data set and as they come.

        Raises:
            DataError: Something that all rows need is missing or broken.
        """
        ...


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Lines of a text file that are not empty, with the place of each for errors; `.gz` and `.xz` are decompressed.

    Raises:
        DataError: The file cannot be read, is no text in this encoding, or has an endless line.
    """
    try:
        with open_compressed(path) as lines:
            for number, raw in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError("a line longer than 16 MB", where=f"{path}:{number}", remedy="check the file")
                line = raw.removeprefix(BOM).decode(encoding).rstrip("\r\n")
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError:
        raise DataError(f"not a text file in {encoding}", where=path, remedy="convert it") from None


def table_rows(path: Path, delimiter: str, *, quoted: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table with a heading, by column, with the place of each for errors.

    Raises:
        DataError: The file cannot be read, has no heading, or a row has another number of fields.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(
                file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=quoted
            )
            heading = next(lines, [])
            for fields in lines:
                where = f"{path}:{lines.line_num}"
                if fields and len(fields) != len(heading):
                    what = f"{len(fields)} fields where the heading has {len(heading)}"
                    raise DataError(what, where=where, remedy="mend the line or its quotation marks")
                if fields:
                    yield where, dict(zip(heading, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"not a table ({error})", where=f"{path}:{lines.line_num}", remedy="mend the line") from None
    except UnicodeDecodeError:
        raise DataError("not a UTF-8 text file", where=path, remedy="convert it to UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def column(names: Mapping[str, Any] | list[str], wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted columns that is there."""
    return next((name for name in wanted if name in names), None)


def _named_column(names: list[str], named: str | None, usual: tuple[str, ...], option: str, where: Path) -> str:
    """The column that the user names, or else the first of the usual ones that is there.

    Raises:
        DataError: There is none.
    """
    found = column(names, usual) if named is None else column(names, (named,))
    if found is None:
        what = f"no column {named!r}" if named else f"no column {', '.join(usual[:3])} or the like"
        raise DataError(f"{what} among {', '.join(names)[:200]}", where=where, remedy=f"name one with {option}")
    return found


def audio_and_text(names: list[str], columns: Columns, usual: tuple[str, ...], where: Path) -> tuple[str, str | None]:
    """The columns of the audio, which are else called as usual, and of the text; None where a table has no texts.

    Raises:
        DataError: There is no column of audio, or none that the user names.
    """
    audio = _named_column(names, columns.audio, usual, "--audio-column", where)
    has_text = columns.text is not None or column(names, TEXT) is not None
    return audio, _named_column(names, columns.text, TEXT, "--text-column", where) if has_text else None


def local_file(name: str, folder: Path) -> Path:
    """A file that a table names: from where we are, as its toolkit reads it, or else from the table's folder."""
    path = Path(name)
    return path if path.is_absolute() or path.is_file() else folder / path


def number(value: str | float, where: str) -> float:
    """A number of seconds, which tables write as text.

    Raises:
        DataError: It is none, or below 0.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if not 0.0 <= found < MAX_SECONDS:
        raise DataError(f"'{str(value)[:40]}' is no time in seconds", where=where, remedy="mend the line")
    return found


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"cannot be read ({reason})", where=path, remedy="check the path")
