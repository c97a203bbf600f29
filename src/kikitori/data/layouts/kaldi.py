"""Kaldi's data folders: `wav.scp`, `text`, and perhaps `segments`, `utt2spk`, `utt2lang`, `utt2dur`.

Recordings have to be plain files: a command in `wav.scp` is never run, and audio within an archive is not looked for.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, local_file, number, text_lines
from kikitori.errors import DataError

_INSIDE = re.compile(r".*:\d+(\[.*\])?")  # of an archive, at so many bytes


def evidence(source: Path) -> str | None:
    """`wav.scp`."""
    return "wav.scp" if (source / "wav.scp").is_file() else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The utterances of `segments`, or else the recordings of `wav.scp`, in their order.

    Raises:
        DataError: A line is broken, an id comes twice, or a recording is no plain file.
    """
    recordings, texts = _recordings(source), _optional(source, "text")
    speakers, languages = _optional(source, "utt2spk"), _optional(source, "utt2lang")
    cuts = _segments(source) if (source / "segments").is_file() else _wholes(source, recordings)
    for where, utt_id, recording, start, seconds in cuts:
        if recording not in recordings:
            leave_out(f"{where}: recording {recording!r} is not in wav.scp")
            texts.pop(utt_id, None)
            continue
        yield SourceRow(
            utt_id=utt_id,
            audio=recordings[recording],
            text=texts.pop(utt_id, None),
            offset=start,
            duration=seconds,
            speaker=speakers.get(utt_id),
            language=languages.get(utt_id),
            where=where,
        )
    for utt_id in texts:
        leave_out(f"{source / 'text'}: {utt_id!r} has no audio")


def _recordings(source: Path) -> dict[str, Path]:
    recordings, commands = dict[str, Path](), list[tuple[str, str]]()
    for where, key, value in _pairs(source / "wav.scp"):
        if value.endswith("|") or value.startswith("|"):
            commands.append((where, value))
        elif value == "-" or _INSIDE.fullmatch(value):
            what = f"'{value[:80]}' is no plain file"
            remedy = "write the audio into files of their own (wav-copy), and name those"
            raise DataError(what, where=where, remedy=remedy)
        else:
            recordings[key] = local_file(value, source)
    if commands:
        where, value = commands[0]
        more = f" (and {len(commands) - 1} more)" if len(commands) > 1 else ""
        remedy = "run it yourself (wav-copy scp:wav.scp ...) and name the files that it writes"
        raise DataError(f"'{value[:80]}' is a command, which is not run{more}", where=where, remedy=remedy)
    return recordings


def _segments(source: Path) -> Iterator[tuple[str, str, str, float, float | None]]:
    for where, utt_id, value in _pairs(source / "segments"):
        fields = value.split()
        if len(fields) not in (3, 4):  # the fourth is a channel
            raise DataError("no recording, start and end", where=where, remedy="mend the line")
        start, until_end = number(fields[1], where), fields[2].startswith("-")
        end = None if until_end else number(fields[2], where)
        if end is not None and end <= start:
            raise DataError(f"it ends at {end:g} s, before it begins", where=where, remedy="mend the line")
        yield where, utt_id, fields[0], start, None if end is None else end - start


def _wholes(source: Path, recordings: dict[str, Path]) -> Iterator[tuple[str, str, str, float, float | None]]:
    durations = _optional(source, "utt2dur")
    for utt_id in recordings:
        where = f"{source / 'wav.scp'}: {utt_id}"
        seconds = number(durations[utt_id], str(source / "utt2dur")) if utt_id in durations else None
        yield where, utt_id, utt_id, 0.0, seconds


def _optional(source: Path, name: str) -> dict[str, str]:
    return {key: value for _, key, value in _pairs(source / name)} if (source / name).is_file() else {}


def _pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    """Keys, and what stands behind them, with the place of each."""
    seen = set[str]()
    for where, line in text_lines(path):
        key, _, value = line.strip().replace("\t", " ", 1).partition(" ")
        if key in seen:
            raise DataError(f"'{key}' comes twice", where=where, remedy="leave one out")
        seen.add(key)
        if not value.strip() and path.name != "text":
            raise DataError("nothing stands behind the id", where=where, remedy="mend the line")
        yield where, key, value.strip()
