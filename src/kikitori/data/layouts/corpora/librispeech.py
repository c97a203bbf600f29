"""LibriSpeech's layout: `PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` beside the FLAC files that it transcribes."""

from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, text_lines


def evidence(source: Path) -> str | None:
    """A `.trans.txt`."""
    return "*.trans.txt" if next(source.rglob("*.trans.txt"), None) else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The utterances of all parts below a folder; `split` is the name of the part, such as `dev-clean`.

    Raises:
        DataError: A transcript file cannot be read.
    """
    for transcripts in sorted(source.rglob("*.trans.txt")):
        part = transcripts.resolve().parent.parent.parent.name
        for where, line in text_lines(transcripts):
            utt_id, _, text = line.strip().partition(" ")
            yield SourceRow(
                utt_id=utt_id,
                audio=transcripts.parent / f"{utt_id}.flac",
                text=text,
                speaker=utt_id.partition("-")[0],
                language="en",
                split=part,
                where=where,
            )
