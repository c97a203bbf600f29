"""JSUT's layout: in each part's folder `transcript_utf8.txt` with `ID:text`, and `wav/ID.wav`."""

from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, text_lines
from kikitori.errors import DataError

TRANSCRIPT = "transcript_utf8.txt"


def evidence(source: Path) -> str | None:
    """`transcript_utf8.txt`, here or in the folders below."""
    return TRANSCRIPT if next(_transcripts(source), None) else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The utterances of all parts; `split` is the name of the part, such as `basic5000`.

    Raises:
        DataError: A line has no colon.
    """
    for transcript in _transcripts(source):
        for where, line in text_lines(transcript):
            utt_id, colon, text = line.strip().partition(":")
            if not colon:
                raise DataError("no colon behind an id", where=where, remedy="copy the file again")
            yield SourceRow(
                utt_id=utt_id,
                audio=transcript.parent / "wav" / f"{utt_id}.wav",
                text=text,
                speaker="jsut",
                language="ja",
                split=transcript.resolve().parent.name,
                where=where,
            )


def _transcripts(source: Path) -> Iterator[Path]:
    return iter(sorted([*source.glob(TRANSCRIPT), *source.glob(f"*/{TRANSCRIPT}")]))
