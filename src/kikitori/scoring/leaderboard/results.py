"""Result files of the Open ASR Leaderboard: a JSON line a recording with raw texts, in the leaderboard's own order.

`audio_filepath` is the name of a recording in its data set. Sets whose recordings were cut into chunks have `parent_id`
and `chunk_index` behind, and the text of the whole recording with each chunk.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError, DataError
from kikitori.io.nist.stm import IGNORED
from kikitori.scoring.report import Prediction
from kikitori.text.normalize import normalize

NORMALIZER = "open_asr_en"
PUBLIC = "hf-audio/open-asr-leaderboard"
"""Where the public English sets are, each a configuration of its own."""
PARENT, INDEX = "parent_id", "chunk_index"
_KEYS = ("audio_filepath", "duration", "time", "text", "pred_text")
_FILE = re.compile(r"MODEL_.+_DATASET_(?P<set>.+)\.jsonl")
_IGNORED = IGNORED.replace("_", " ")


@dataclass(frozen=True)
class Dataset:
    """A data set by its hub id, its configuration (empty where it has none) and its split."""

    path: str
    name: str
    split: str

    def file_name(self, model_id: str) -> str:
        """Of the results of a model, which is a hub id."""
        model, path, name = (each.replace("/", "-") for each in (model_id, self.path, self.name))
        return f"MODEL_{model}_DATASET_{path}_{name}_{self.split}.jsonl"

    def __str__(self) -> str:
        return ":".join((self.path, self.name, self.split))


@dataclass(frozen=True)
class Result:
    """A line; seconds are null in the files where they were not measured.

    Attributes:
        extra: What stands behind the five keys of all files, such as `parent_id` and `chunk_index`.
    """

    audio_filepath: str
    duration: float | None
    time: float | None
    text: str
    pred_text: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def parse_dataset(text: str) -> Dataset:
    """A data set as `NAME:SPLIT` of the public English sets, or as `PATH:NAME:SPLIT`.

    Raises:
        ConfigError: It is neither.
    """
    parts = text.split(":")
    if len(parts) == 2:
        parts = [PUBLIC, *parts]
    if len(parts) != 3 or not parts[0] or not parts[2] or any(re.search(r"\s|\.\.", part) for part in parts):
        remedy = "write NAME:SPLIT of the public sets (librispeech:test.clean), or PATH:NAME:SPLIT"
        raise ConfigError(f"'{text}' is no data set", where="--set", remedy=remedy)
    return Dataset(*parts)


def is_result_file(path: Path) -> bool:
    """Whether a file has the name of a result file."""
    return _FILE.fullmatch(path.name) is not None


def set_of(path: Path) -> str:
    """The data set in the name of a result file, as the leaderboard spells it there."""
    found = _FILE.fullmatch(path.name)
    return found["set"] if found else path.stem


def results_of(predictions: Iterable[Prediction]) -> tuple[list[Result], int]:
    """The results of predictions in their order, and how many recordings the leaderboard skips.

    Skipped are those whose reference is empty once it is normalized, or says that it is not to be scored.
    """
    results, skipped = list[Result](), 0
    for prediction in predictions:
        utterance = prediction.utterance
        if normalize(NORMALIZER, utterance.text or "").strip() in ("", _IGNORED):
            skipped += 1
            continue
        results.append(
            Result(
                audio_filepath=utterance.utt_id or f"sample_{len(results)}",
                duration=utterance.duration,
                time=prediction.time,
                text=utterance.text or "",
                pred_text=prediction.pred_text,
                extra={key: utterance.extra[key] for key in (PARENT, INDEX) if key in utterance.extra},
            )
        )
    return results, skipped


def format_results(results: Sequence[Result]) -> str:
    """The content of a result file."""
    rows = ({key: getattr(each, key) for key in _KEYS} | dict(each.extra) for each in results)
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_results(path: Path) -> list[Result]:
    """The lines of a result file.

    Raises:
        DataError: The file cannot be read, is empty, or a line is none of such a file; the line is named.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # texts may hold other ends of lines
    except UnicodeDecodeError:
        raise DataError("not a UTF-8 text file", where=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from None
    results = [_result(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not results:
        raise DataError("it has no rows", where=path, remedy="give a result file of the leaderboard")
    return results


def joined(results: Sequence[Result]) -> list[Result]:
    """Results of whole recordings: the texts of chunks one after the other, by the names of the recordings.

    Raises:
        DataError: A recording lacks a chunk, or has one twice.
    """
    if not any(PARENT in each.extra for each in results):
        return list(results)
    recordings: dict[str, list[Result]] = {}
    for each in results:
        if PARENT not in each.extra or not isinstance(each.extra.get(INDEX), int):
            raise DataError(f"no {PARENT} and {INDEX}, which others have", where=each.audio_filepath)
        recordings.setdefault(str(each.extra[PARENT]), []).append(each)
    return [_joined(name, recordings[name]) for name in sorted(recordings)]


def _joined(name: str, chunks: list[Result]) -> Result:
    chunks.sort(key=lambda each: int(each.extra[INDEX]))
    numbers = [each.extra[INDEX] for each in chunks]
    if numbers != [*range(len(numbers))]:
        what = f"its chunks are {', '.join(map(str, numbers))[:80]}"
        raise DataError(what, where=name, remedy="evaluate all chunks from 0 on, each once")
    texts = [text for each in chunks if (text := each.pred_text.strip())]
    return Result(name, _sum(chunks, "duration"), _sum(chunks, "time"), chunks[0].text, " ".join(texts))


def _sum(chunks: Sequence[Result], key: str) -> float | None:
    values = [getattr(each, key) for each in chunks]
    return None if None in values else math.fsum(values)


def _result(line: str, where: str) -> Result:
    remedy = "give a result file of the leaderboard"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})", where=where, remedy=remedy) from None
    if not isinstance(row, dict) or not row.keys() >= {*_KEYS}:
        raise DataError(f"not all of {', '.join(_KEYS)} are there", where=where, remedy=remedy)
    for key in ("audio_filepath", "text", "pred_text"):
        if not isinstance(row[key], str):
            raise DataError(f"'{key}' is no text", where=where, remedy=remedy)
    for key in ("duration", "time"):
        value = row[key]
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9
        ):
            raise DataError(f"'{key}' is no number of seconds", where=where, remedy=remedy)
    return Result(**{key: row[key] for key in _KEYS}, extra={key: row[key] for key in row if key not in _KEYS})
