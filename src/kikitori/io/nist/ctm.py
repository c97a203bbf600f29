"""`ctm`: words with their times in a channel of a recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.files import write_text
from kikitori.io.nist.lines import REMEDY, numbered_lines, one_field, plain, seconds


@dataclass(frozen=True)
class TimedWord:
    """A line of a file; times are seconds."""

    recording: str
    channel: str
    start: float
    duration: float
    word: str
    confidence: float | None = None

    @property
    def middle(self) -> float:
        """By which it belongs to a stretch of the reference."""
        return self.start + self.duration / 2.0


def read_ctm(path: Path) -> list[TimedWord]:
    """The words of a file, in its order.

    Raises:
        DataError: The file cannot be read, or a line is none of `ctm`; the line is named.
    """
    return [_word(line, where) for where, line in numbered_lines(path)]


def write_ctm(path: Path, words: Sequence[TimedWord]) -> None:
    """Writes words.

    Raises:
        DataError: The file cannot be written.
    """
    write_text(path, "".join(f"{format_word(word)}\n" for word in words))


def format_word(word: TimedWord) -> str:
    """The line of a word."""
    names = f"{one_field(word.recording)} {one_field(word.channel)}"
    line = f"{names} {word.start:.3f} {word.duration:.3f} {one_field(word.word)}"
    return line if word.confidence is None else f"{line} {word.confidence:.4f}"


def _word(line: str, where: str) -> TimedWord:
    fields = line.split()
    if len(fields) < 5:
        raise DataError("fewer than five fields", where=where, remedy=REMEDY)
    recording, channel, start, duration, word, *more = fields
    if word.upper().startswith("<ALT"):
        raise DataError("alternatives cannot be scored", where=where, remedy="leave one of them")
    confidence = seconds(more[0], where) if more and more[0].upper() != "NA" else None
    return TimedWord(
        recording, channel, seconds(start, where), seconds(duration, where), plain(word, where), confidence
    )
