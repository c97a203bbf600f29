"""The Corpus of Spontaneous Japanese, by its public description: `MORPH/SDB/PART/TALK.sdb` and `WAV/PART/TALK.wav`.

A line of a `.sdb` (in Shift_JIS) is a word, its fields separated by tabs; the fourth says which stretch it belongs to
(`0099 00280.998-00284.221 L:...`), the sixth is the word as it is written, with the tags of the transcription. Fillers
`(F えー)`, fragments `(D こ)` and what is uncertain `(? ...)` stay as they sound; of `(W そいで;それで)`, `(A ...)` and
`(K ...)` the second part is taken. Dialogues have a file for each channel, `TALK-L.wav` and `TALK-R.wav`.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, number, text_lines
from kikitori.errors import DataError

TAKES_SECOND = ("A", "K", "W")
MASKED = "×"
_NOTES = re.compile("<[^<>]*>")  # <H>, <笑>, <雑音>
_STRETCH = re.compile(r"(?P<number>\d+) (?P<start>\d+\.\d+)-(?P<end>\d+\.\d+) (?P<channel>[LR]):\S*")


def evidence(source: Path) -> str | None:
    """A `.sdb` below."""
    return "*.sdb" if next(source.rglob("*.sdb"), None) else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The stretches of all talks; `split` is the part, such as `core`. Masked words (`×`) leave a stretch out.

    Raises:
        DataError: A line of a `.sdb` is none.
    """
    for path in sorted(source.rglob("*.sdb")):
        part, talk = path.resolve().parent.name, path.stem
        for (where, name, start, end, channel), words in groupby(_words(path), key=lambda word: word[0]):
            text = plain_text("".join(surface for _, surface in words))
            if text is None:
                leave_out(f"{where}: a tag goes on behind the stretch {name} of {talk}")
            elif MASKED in text:
                leave_out(f"{where}: masked words in the stretch {name} of {talk}")
            elif text:
                yield SourceRow(
                    utt_id=f"{talk}_{name}",
                    audio=_audio(source, part, talk, channel),
                    text=text,
                    offset=start,
                    duration=end - start,
                    speaker=f"{talk}-{channel}" if talk.startswith("D") else talk,
                    language="ja",
                    split=part,
                    where=where,
                )


def plain_text(tagged: str) -> str | None:
    """What a transcription with tags writes; None if a tag is not closed.

    The tags are those of the corpus (`(F ...)`, `(D2 ...)`, `(W ...;...)`), and may lie within each other.
    """
    parts: list[str] = [""]
    tags: list[tuple[str, list[str]]] = []
    for piece in re.findall(r"\([^\s()]*\s?|\)|;|[^();]+", _NOTES.sub("", tagged)):
        if piece.startswith("("):
            tags.append((piece[1:].strip(), parts))
            parts = [""]
        elif piece == ")":
            if not tags:
                return None
            tag, outer = tags.pop()
            chosen = parts[1] if tag in TAKES_SECOND and len(parts) > 1 else parts[0]
            outer[-1] += chosen
            parts = outer
        elif piece == ";" and tags:
            parts.append("")
        else:
            parts[-1] += piece
    return None if tags else "".join(parts[0].split())


_Place = tuple[str, str, float, float, str]


def _words(path: Path) -> Iterator[tuple[_Place, str]]:
    place: _Place | None = None
    for where, line in text_lines(path, "cp932"):
        fields = line.split("\t")
        found = _STRETCH.fullmatch(fields[3]) if len(fields) > 5 else None
        if found is None:
            raise DataError("no stretch in the fourth of six fields", where=where, remedy="copy the file again")
        name = f"{found['number']}{found['channel']}" if path.stem.startswith("D") else found["number"]
        start, end = number(found["start"], where), number(found["end"], where)
        if place is None or place[1:] != (name, start, end, found["channel"]):
            place = (where, name, start, end, found["channel"])
        yield place, fields[5].rstrip("・")


def _audio(source: Path, part: str, talk: str, channel: str) -> Path:
    name = f"{talk}-{channel}.wav" if talk.startswith("D") else f"{talk}.wav"
    return source / "WAV" / part / name
