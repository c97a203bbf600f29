"""`stm`: stretches of recordings with what was said in them, by whom and when."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.files import write_text
from kikitori.io.nist.lines import REMEDY, numbered_lines, one_field, plain, seconds

IGNORED = "ignore_time_segment_in_scoring"
"""Text of stretches that are not scored."""
_LABELS = re.compile(r"<[^>\s]*>(?:\s+|$)")


@dataclass(frozen=True)
class Stretch:
    """A line of a file: seconds from `start` to `end` of a channel of a recording."""

    recording: str
    channel: str
    speaker: str
    start: float
    end: float
    text: str

    @property
    def is_scored(self) -> bool:
        """Whether what is said in it counts."""
        return self.text.casefold() != IGNORED


def read_stm(path: Path) -> list[Stretch]:
    """The lines of a file, in its order; labels such as `<o,f0,male>` are left out.

    Raises:
        DataError: The file cannot be read, or a line is none of `stm`; the line is named.
    """
    return [_stretch(line, where) for where, line in numbered_lines(path)]


def write_stm(path: Path, stretches: Sequence[Stretch]) -> None:
    """Writes stretches.

    Raises:
        DataError: A text has alternatives in braces, or the file cannot be written.
    """
    lines = []
    for each in stretches:
        names = " ".join(map(one_field, (each.recording, each.channel, each.speaker)))
        text = plain(each.text, each.recording)
        lines.append(f"{names} {each.start:.3f} {each.end:.3f} {text}".rstrip() + "\n")
    write_text(path, "".join(lines))


def _stretch(line: str, where: str) -> Stretch:
    fields = line.split(maxsplit=5)
    if len(fields) < 5:
        raise DataError("fewer than five fields", where=where, remedy=REMEDY)
    recording, channel, speaker, first, last = fields[:5]
    start, end = seconds(first, where), seconds(last, where)
    if end < start:
        raise DataError("it ends before it begins", where=where, remedy=REMEDY)
    text = _LABELS.sub("", fields[5], count=1) if len(fields) > 5 and _LABELS.match(fields[5]) else "".join(fields[5:])
    return Stretch(recording, channel, speaker, start, end, plain(text, where))
