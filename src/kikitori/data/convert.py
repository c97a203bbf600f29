"""`kikitori data convert`: the rows of another layout as a manifest, audio that lies in other files written out.

The manifest is written last, under another name first: it is there whole or not at all. Audio files are too, and one
that is there with the same bytes stays, so that a conversion that was killed goes on.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from kikitori.data.layouts.base import LeaveOut, SourceRow
from kikitori.data.layouts.keep import MANIFEST, AudioFolder, Keeper
from kikitori.data.manifest import BYTES, KNOWN_KEYS
from kikitori.errors import AudioError, ConfigError, DataError, counted
from kikitori.io.audio import SAMPLE_RATE, promised_seconds, stream_audio
from kikitori.io.files import disk_error
from kikitori.text.forms.languages import check_language

_DIGITS = 6  # of seconds


@dataclass
class Converted:
    """What became of a data set; `languages` are names in it that are no codes, with how many rows have each."""

    manifest: Path
    utterances: int = 0
    seconds: float = 0.0
    without_text: int = 0
    written: int = 0
    languages: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """What it came to, a line each."""
        lines = [f"{counted(self.utterances, 'utterance')}, {self.seconds / 3600:.2f} h"]
        if self.written:
            lines.append(f"{counted(self.written, 'audio file')} written")
        if self.without_text:
            lines.append(f"{self.without_text} without text")
        lines += [
            f"warning: language '{name[:40]}' of {counted(count, 'row')} is no code; give --language"
            for name, count in self.languages.items()
        ]
        return lines


def manifest_path(output: Path) -> Path:
    """The manifest that `-o` means: a file `.jsonl`, or `manifest.jsonl` in a folder.

    Raises:
        DataError: It is there already.
    """
    manifest = output if output.suffix == ".jsonl" else output / MANIFEST
    if manifest.exists():
        raise DataError("is there already", where=manifest, remedy="delete it or choose another")
    return manifest


def convert(
    rows: Iterable[SourceRow],
    manifest: Path,
    *,
    keeper: Keeper | None = None,
    splits: tuple[str, ...] = (),
    language: str | None = None,
    leave_out: LeaveOut,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Writes rows as a manifest.

    Args:
        rows: What a `Layout` reads.
        manifest: Where to; its folder is made.
        keeper: What becomes of audio that is not a file of its own; None writes it into the folder `audio` beside it.
        splits: Parts to take, by the data set's own names; all if none.
        language: Code of the language of all rows, whatever they say.
        leave_out: Is told of rows that cannot be taken.
        progress: Gets how many more rows are done.

    Raises:
        ConfigError: There is no such split.
        DataError: No row can be taken, or something cannot be written.
    """
    result, keeper = Converted(manifest), keeper or AudioFolder(manifest)
    known = Counter[str]()
    with _whole(manifest) as out:
        for row in rows:
            progress(1)
            known[row.split or ""] += 1
            if splits and row.split not in splits:
                continue
            try:
                values = _values(row, keeper, manifest.parent, language, result)
            except (AudioError, ValueError) as error:
                leave_out(f"{row.where}: {error}" if row.where else str(error))
                continue
            out.write(json.dumps(values, ensure_ascii=False) + "\n")
            result.utterances += 1
            result.seconds += values["duration"]
            result.without_text += values["text"] is None
        result.written = keeper.written
        missing = [split for split in splits if split not in known]
        if missing:
            names = ", ".join(filter(None, known)) or "none"
            raise ConfigError(f"there is no split '{missing[0]}'", where="--split", remedy=f"it has {names}")
        if not result.utterances:
            if not known:
                raise DataError("the data set has no row", where=manifest, remedy="check its files")
            raise DataError("no row could be taken", where=manifest, remedy="see the lines above")
    return result


def _values(row: SourceRow, keeper: Keeper, root: Path, language: str | None, result: Converted) -> dict[str, Any]:
    """The row of a manifest.

    Raises:
        AudioError: The audio is missing or none.
        ValueError: A text cannot be written.
    """
    audio, stored = keeper.keep(row)
    duration = row.duration
    if duration is None or not audio.is_file():
        duration = (seconds_of(audio) if stored is None else _seconds(stored.read())) - row.offset
        if duration <= 0.0:
            raise AudioError(f"ends before {row.offset:g} s", where=audio, remedy="correct the data set")
    values: dict[str, Any] = {
        "audio_filepath": _written_as(audio, root),
        "duration": round(duration, _DIGITS),
        "text": row.text,
        "offset": round(row.offset, _DIGITS) or None,
        "id": row.utt_id,
        "speaker": row.speaker,
        "language": language or _code(row.language, result),
        "split": row.split,
        BYTES: None if stored is None else [stored.start, stored.size],
    }
    values |= {key: value for key, value in row.extra.items() if key not in KNOWN_KEYS}
    for key, value in values.items():
        if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            raise ValueError(f"{key!r} holds half a character (a lone surrogate)")
    return {key: value for key, value in values.items() if value is not None or key == "text"}


@lru_cache(maxsize=4096)
def seconds_of(audio: Path) -> float:
    """The length of a file, by its header where that says it.

    Raises:
        AudioError: It is missing or no audio.
    """
    return _seconds(audio)


def _seconds(audio: Path | bytes) -> float:
    promised = promised_seconds(audio)
    return promised if promised is not None else sum(map(len, stream_audio(audio))) / SAMPLE_RATE


def _written_as(audio: Path, root: Path) -> str:
    """A path as it stands in a manifest: relative to its folder if it lies below."""
    absolute, folder = audio.absolute(), root.absolute()
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


def _code(language: str | None, result: Converted) -> str | None:
    try:
        check_language(language, "language")
    except ConfigError:
        result.languages[str(language)] += 1
        return None
    return language


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A manifest to write, which is there at the end whole, or not at all; nobody else writes it meanwhile.

    Raises:
        DataError: Another process writes it, or the disk refuses.
    """
    part, lock = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # FileLock takes a folder that refuses files for one that is locked
        with FileLock(lock, blocking=False):
            try:
                with part.open("w", encoding="utf-8") as out:
                    yield out
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise DataError("another run is writing it", where=path, remedy="wait for it or choose another") from None
    except OSError as error:
        raise disk_error(path, error) from error
