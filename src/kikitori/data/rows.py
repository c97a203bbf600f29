"""Utterances by the million: a table has what batches and filters ask of each, the rest stays in its manifest.

A row of the table takes 35 bytes. Its utterance is read from the manifest when it is needed, and must be as it was.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kikitori.data.manifest import OnError, is_recognized, manifest_rows, no_rows, parse_row
from kikitori.errors import DataError
from kikitori.types import Utterance

AT_ONCE = 256
"""Utterances that are in memory while a table is made; more of them no longer stay in the cache of the CPU."""
COLUMNS = np.dtype(
    [
        ("source", np.int32),
        ("place", np.int64),
        ("duration", np.float64),
        ("characters", np.int32),  # of the text; -1 without one
        ("digest", np.uint32),
        ("labelled", np.bool_),
        ("there", np.bool_),  # the audio file
        ("recognized", np.bool_),
        ("shard", np.uint32),  # a checksum of the name of the file in which the audio file lies; 0 if it is one itself
    ]
)

HaveLabels = Callable[[Sequence[str]], Sequence[bool]]
"""Whether each of some texts has labels."""


class RowSource(Protocol):
    """Where utterances stand."""

    def rows(self, places: Iterable[int]) -> Iterator[Utterance]:
        """The utterances at some places.

        Raises:
            DataError: One cannot be read any more.
        """
        ...


class Rows(Sequence[Utterance]):
    """Utterances in an order, read one by one.

    Args:
        sources: Where they stand.
        table: What is known of each, (n,) of `COLUMNS`.
    """

    def __init__(self, sources: Sequence[RowSource], table: NDArray[np.void]) -> None:
        self._sources, self.table = tuple(sources), table

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Utterance | Rows":
        """One utterance, or some of them, unread.

        Raises:
            DataError: It is no longer what it was when the table was made.
        """
        if isinstance(index, slice):
            return self.take(index)
        return next(self._read(self.table[[index]]))

    def __iter__(self) -> Iterator[Utterance]:
        return self._read(self.table)

    @property
    def durations(self) -> NDArray[np.float64]:
        """Seconds of each, (n,)."""
        found: NDArray[np.float64] = self.table["duration"]
        return found

    def take(self, indices: slice | NDArray[Any] | Sequence[int]) -> "Rows":
        """Some of them, by numbers or a mask."""
        return Rows(self._sources, self.table[indices])

    def digest(self) -> str:
        """SHA-256 of names, places in their files, durations and texts, in their order."""
        return hashlib.sha256(np.ascontiguousarray(self.table["digest"]).tobytes()).hexdigest()

    def _read(self, table: NDArray[np.void]) -> Iterator[Utterance]:
        borders = np.flatnonzero(np.diff(table["source"])) + 1
        for part in np.split(table, borders) if len(table) else ():
            source = self._sources[part["source"][0]]
            for row, expected in zip(source.rows(part["place"]), part["digest"], strict=True):
                if _digest(row) != expected:
                    raise DataError(
                        f"the row of {row.utt_id!r} has changed since it was first read",
                        where=row.audio_filepath,
                        remedy="begin again, or go on with --resume",
                    )
                yield row


def listed(utterances: Iterable[Utterance], have_labels: HaveLabels | None = None) -> Rows:
    """Utterances that are in memory as rows; see `read_rows` for `have_labels`."""
    kept = [*utterances]
    return tabulated(_Listed(kept), enumerate(kept), have_labels)


def joined(parts: Iterable[Rows]) -> Rows:
    """Several rows, one behind the other."""
    sources, tables = list[RowSource](), list[NDArray[np.void]]()
    for part in parts:
        table = part.table
        if sources:
            table = table.copy()
            table["source"] += len(sources)
        sources += part._sources
        tables.append(table)
    return Rows(sources, tables[0] if len(tables) == 1 else np.concatenate([np.zeros(0, COLUMNS), *tables]))


class Read(NamedTuple):
    """Rows of a manifest, and its broken lines with the reasons."""

    rows: Rows
    problems: tuple[str, ...]


def read_rows(
    path: Path,
    *,
    split: str | None = None,
    on_error: OnError = "stop",
    have_labels: HaveLabels | None = None,
    nonspeech: bool = False,
) -> Read:
    """Goes through a manifest once; see `kikitori.data.manifest.read_manifest`, which keeps all in memory.

    Args:
        path: The manifest.
        split: Rows of this split only.
        on_error: `stop` raises at the first broken line, `skip` collects it.
        have_labels: Marks rows without a text that has labels; None asks for no text.
        nonspeech: The text of all rows is empty, and needs no labels.

    Raises:
        DataError: The file is missing, holds no usable row, or (with `stop`) has a broken line.
    """
    problems = list[str]()
    source = ManifestFile(path, nonspeech)
    found = (
        (place, replace(row, text="") if nonspeech else row)
        for place, row in manifest_rows(path, on_error, problems)
        if split is None or row.split == split
    )
    rows = tabulated(source, found, None if nonspeech else have_labels)
    if not rows:
        raise no_rows(path, split)
    return Read(rows, tuple(problems))


def tabulated(source: RowSource, rows: Iterable[tuple[int, Utterance]], have_labels: HaveLabels | None) -> Rows:
    """A table of the utterances at some places of a source, which are gone through once."""
    tables, coming = [np.zeros(0, COLUMNS)], iter(rows)
    while part := [*islice(coming, AT_ONCE)]:
        utterances = [row for _, row in part]
        table = np.zeros(len(part), COLUMNS)
        table["place"] = [place for place, _ in part]
        table["duration"] = [row.duration for row in utterances]
        table["characters"] = [-1 if row.text is None else len(row.text) for row in utterances]
        table["digest"] = [_digest(row) for row in utterances]
        table["labelled"] = _labelled(utterances, have_labels)
        there = {path: path.is_file() for path in {row.audio_filepath for row in utterances}}
        table["there"] = [there[row.audio_filepath] for row in utterances]
        table["recognized"] = [is_recognized(row) for row in utterances]
        table["shard"] = [_shard(row.audio_filepath) if row.byte_range else 0 for row in utterances]
        tables.append(table)
    return Rows([source], np.concatenate(tables))


@dataclass(frozen=True)
class ManifestFile:
    """The rows of a manifest by the bytes at which their lines begin; `nonspeech` empties their texts."""

    path: Path
    nonspeech: bool = False

    def rows(self, places: Iterable[int]) -> Iterator[Utterance]:
        """The utterances at some places.

        Raises:
            DataError: The manifest is gone or has changed.
        """
        try:
            with self.path.open("rb") as file:
                for place in places:
                    file.seek(place)
                    row = parse_row(file.readline(), self.path.parent)
                    yield replace(row, text="") if self.nonspeech else row
        except (OSError, ValueError) as error:
            what = f"has changed since it was first read ({error})"
            raise DataError(what, where=self.path, remedy="begin again, or go on with --resume") from None


@dataclass(frozen=True)
class _Listed:
    """Utterances in memory, by their numbers."""

    utterances: Sequence[Utterance]

    def rows(self, places: Iterable[int]) -> Iterator[Utterance]:
        return (self.utterances[place] for place in places)


def _labelled(utterances: Sequence[Utterance], have_labels: HaveLabels | None) -> Sequence[bool]:
    """Whether each has a text that has labels; an empty one was forgotten. True of all where no text is asked for."""
    if have_labels is None:
        return [True] * len(utterances)
    texts = [row.text for row in utterances if row.text]
    found = iter(have_labels(texts)) if texts else iter(())
    return [bool(row.text) and next(found) for row in utterances]


@lru_cache(maxsize=4096)
def _shard(path: Path) -> int:
    return crc32(str(path).encode()) or 1


def _digest(row: Utterance) -> int:
    """A checksum of what a row says, the same in every process."""
    said = "\0".join((row.utt_id, str(row.offset), str(row.duration), "" if row.text is None else f"\0{row.text}"))
    return crc32(said.encode())
