"""Lhotse's cuts: a file of cuts (`.jsonl`, `.jsonl.gz`), or a Shar folder (`cuts.*.jsonl.gz`, `recording.*.tar`).

A cut is an utterance, with the texts of its supervisions one after the other. Cuts that Lhotse would mix, pad, change
or take one channel of when it reads them are left out: `to_shar` writes them as they sound.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow, local_file, number, text_lines
from kikitori.data.layouts.stored import Stored
from kikitori.data.layouts.tars import members
from kikitori.errors import DataError, first_line
from kikitori.text.forms.languages import is_unspaced

_COMMANDS = ("command", "url")
_TO_SHAR = "write the cuts with to_shar"


def evidence(source: Path) -> str | None:
    """The first line of a file is a cut, or a folder has shards of cuts."""
    if source.is_dir():
        return "cuts.*.jsonl.gz" if _shards(source) else None
    if not source.name.endswith((".jsonl", ".jsonl.gz")) or not source.is_file():
        return None
    try:
        first = next(_cuts(source), None)
    except DataError:
        return None
    return str(first[1]["type"]) if first and str(first[1]["type"]).endswith("Cut") else None


def read(source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG001
    """The cuts, in their order.

    Raises:
        DataError: A line is no cut, audio is to come from a command or the network, or a shard does not fit its tar.
    """
    if not source.is_dir():
        for where, cut in _cuts(source):
            with _no_cut(where):
                problem = _problem(cut, where)
                row = (
                    None if problem else _row(cut, where, audio=_file(cut, source.parent), start=cut.get("start", 0.0))
                )
            if row is None:
                leave_out(f"{where}: {problem}")
            else:
                yield row
        return
    for shard in _shards(source):
        for where, cut, name, data in _with_audio(shard):
            if cut.get("type") == "MixedCut" or data is None:
                leave_out(f"{where}: {cut.get('id')} has no recording of its own")
                continue
            with _no_cut(where):
                row = _row(cut, where, audio=Path(name), data=data)
            yield row


def _cuts(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in text_lines(path):
        try:
            cut = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON ({error})", where=where, remedy="write the cuts again") from None
        if not isinstance(cut, dict) or not isinstance(cut.get("id"), str) or "type" not in cut:
            raise DataError("is no cut", where=where, remedy="name a file of cuts, not of recordings or supervisions")
        yield where, cut


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("cuts.*.jsonl*") if path.suffix in (".jsonl", ".gz"))


def _problem(cut: Mapping[str, Any], where: str) -> str:
    """Why the audio of a cut is not a stretch of a file; empty if it is."""
    recording = cut.get("recording")
    if not isinstance(recording, dict):
        return f"{cut['id']} is a {cut['type']} without a recording of its own; {_TO_SHAR}"
    if recording.get("transforms"):
        return f"{cut['id']}: its recording is changed when it is read; {_TO_SHAR}"
    sources = recording.get("sources") or [{}]
    if kind := next((each["type"] for each in sources if each.get("type") in _COMMANDS), None):
        what = f"its audio is to come from a {kind}, which is not run"
        raise DataError(what, where=where, remedy=f"{_TO_SHAR} and name that folder")
    if len(sources) > 1 or sources[0].get("type") != "file":
        return f"{cut['id']}: its audio is no single file; {_TO_SHAR}"
    channels, taken = sources[0].get("channels", [0]), cut.get("channel", 0)
    if {*channels} != ({*taken} if isinstance(taken, list) else {taken}):
        return f"{cut['id']}: is some of the channels of its file; {_TO_SHAR}"
    return ""


def _file(cut: Mapping[str, Any], folder: Path) -> Path:
    name = cut["recording"]["sources"][0]["source"]
    if not isinstance(name, str) or not name:
        raise ValueError("its recording names no file")
    return local_file(name, folder)


@contextmanager
def _no_cut(where: str) -> Iterator[None]:
    """Whatever a cut lacks, or has of another kind than Lhotse writes, is one error."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        remedy = "write the cuts again"
        raise DataError(f"is no whole cut ({first_line(error)})", where=where, remedy=remedy) from None


def _row(cut: Mapping[str, Any], where: str, *, audio: Path, data: Stored | None = None, start: Any = 0.0) -> SourceRow:
    said = sorted(cut.get("supervisions") or [], key=lambda each: float(each.get("start", 0.0)))
    texts = [str(each["text"]) for each in said if each.get("text") is not None]
    speakers, languages = (
        {str(each[key]) for each in said if each.get(key) is not None} for key in ("speaker", "language")
    )
    language = languages.pop() if len(languages) == 1 else None
    custom = said[0].get("custom") if len(said) == 1 else None
    return SourceRow(
        utt_id=cut["id"],
        audio=audio,
        data=data,
        text=("" if is_unspaced(language) else " ").join(texts) if texts else None,
        offset=number(start, where),
        duration=number(cut["duration"], where),
        speaker=speakers.pop() if len(speakers) == 1 else None,
        language=language,
        extra=custom if isinstance(custom, dict) else {},
        where=where,
    )


def _with_audio(shard: Path) -> Iterator[tuple[str, dict[str, Any], str, Stored | None]]:
    """The cuts of a shard, each with the name of its audio and where it lies; None where the cut has none."""
    tar = shard.with_name(shard.name.replace("cuts.", "recording.", 1).partition(".jsonl")[0] + ".tar")
    compressed = tar.with_name(tar.name + ".gz")
    audio = members(compressed if compressed.is_file() else tar)
    pairs = zip(audio, audio, strict=False)  # audio, then what is known of it
    for cut, pair in zip_longest(_cuts(shard), pairs):
        if cut is None or pair is None:
            raise DataError(f"{tar.name} has another number of recordings", where=shard, remedy="copy both again")
        (where, values), ((name, data), _) = cut, pair
        if Path(name).stem != Path(values["id"]).name and Path(name).with_suffix("").as_posix() != values["id"]:
            raise DataError(f"the next recording of {tar.name} is {name}", where=where, remedy="copy both again")
        yield where, values, name, None if name.endswith(".nodata") else data
