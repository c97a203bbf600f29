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
        self._stretches = defaultdict[Path, list[tuple[float, float]]](list)
        self._by_size = defaultdict[int, set[Path]](set)
        for row in rows:
            self._stretches[_resolved(row.audio_filepath)].append(_stretch(row))
        for path in self._stretches:
            self._by_size[_size(path)].add(path)

    def has(self, row: Utterance) -> bool:
        """Whether one of the stretches is, in part, that of the row."""
        path, (start, end) = _resolved(row.audio_filepath), _stretch(row)
        paths = [path] if path in self._stretches else self._copies(path)
        return any(start < later and earlier < end for each in paths for earlier, later in self._stretches[each])

    def _copies(self, path: Path) -> list[Path]:
        return [other for other in self._by_size.get(_size(path), ()) if _head(other) == _head(path)]


def _stretch(row: Utterance) -> tuple[float, float]:
    return row.offset, row.offset + row.duration


@lru_cache(maxsize=1 << 16)
def _resolved(path: Path) -> Path:
    return path.resolve()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=1 << 16)
def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_HEAD)).digest()
    except OSError:
        return str(path).encode()  # like no other
