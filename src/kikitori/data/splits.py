"""What a training set shares with a set that is kept for measuring: texts, audio, speakers."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kikitori.data.overlap import held_out
from kikitori.types import Utterance

_HEAD = 1 << 20  # bytes by which files of the same size are compared
_File = tuple[Path, tuple[int, int] | None]  # with the place of the audio file in it, where it is none itself


@dataclass(frozen=True)
class Shared:
    """What a training set shares with another: names of its utterances, and of speakers.

    Attributes:
        texts: Utterances with a run of six words (or twelve characters) of the other's texts, or a whole shorter one.
        audio: Utterances of the same stretch of the same recording, also of a copy of its file.
        speakers: Names that both have.
    """

    texts: tuple[str, ...]
    audio: tuple[str, ...]
    speakers: tuple[str, ...]


def shared(train: Sequence[Utterance], kept: Sequence[Utterance]) -> Shared:
    """What training rows share with rows that are kept for measuring."""
    runs = held_out(row.text for row in kept if row.text)
    recordings = _Recordings(kept)
    return Shared(
        texts=tuple(row.utt_id for row in train if row.text and runs.shares(row.text)),
        audio=tuple(row.utt_id for row in train if recordings.has(row)),
        speakers=tuple(sorted({row.speaker for row in train if row.speaker} & {row.speaker for row in kept})),
    )


class _Recordings:
    """Stretches of recordings, by their files and by the contents of these."""

    def __init__(self, rows: Sequence[Utterance]) -> None:
        self._stretches = defaultdict[_File, list[tuple[float, float]]](list)
        self._by_size = defaultdict[int, set[_File]](set)
        for row in rows:
            self._stretches[_file(row)].append(_stretch(row))
        for file in self._stretches:
            self._by_size[_size(file)].add(file)

    def has(self, row: Utterance) -> bool:
        """Whether one of the stretches is, in part, that of the row."""
        file, (start, end) = _file(row), _stretch(row)
        files = [file] if file in self._stretches else self._copies(file)
        return any(start < later and earlier < end for each in files for earlier, later in self._stretches[each])

    def _copies(self, file: _File) -> list[_File]:
        return [other for other in self._by_size.get(_size(file), ()) if _head(other) == _head(file)]


def _file(row: Utterance) -> _File:
    return _resolved(row.audio_filepath), row.byte_range


def _stretch(row: Utterance) -> tuple[float, float]:
    return row.offset, row.offset + row.duration


@lru_cache(maxsize=1 << 16)
def _resolved(path: Path) -> Path:
    return path.resolve()


def _size(file: _File) -> int:
    path, place = file
    try:
        return place[1] if place else path.stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=1 << 16)
def _head(file: _File) -> bytes:
    path, (start, size) = file[0], file[1] or (0, _HEAD)
    try:
        with path.open("rb") as content:
            content.seek(start)
            return hashlib.blake2b(content.read(min(size, _HEAD))).digest()
    except OSError:
        return str(path).encode()  # like no other
