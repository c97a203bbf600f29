"""An evaluation that many processes may share, and that goes on when one was killed: a journal of predictions.

Each process adds its predictions, a synced line each, to a journal of its own in the folder of the report. The one that
finds all rows there has the whole; when the report is written, the journals go. A row counts as long as manifest, audio
file (by its size and time), recogniser, search and guards are the same.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from kikitori.engine.pool import LostError, Pool, each
from kikitori.errors import DataError
from kikitori.io.files import locked
from kikitori.recognizer import Recognizer
from kikitori.scoring.predictions import read_prediction
from kikitori.scoring.report import Prediction, prediction_line
from kikitori.search.guards import Guards
from kikitori.search.options import Decoding
from kikitori.types import Utterance
from kikitori.workflows.evaluate import Searching, Setting, System, predict
from kikitori.workflows.sharing.journal import append_line, recipe_digest, whole_lines
from kikitori.workflows.sharing.shards import WHOLE, Shard

JOURNAL = ".predictions"


@dataclass(frozen=True)
class Pooled:
    """Recognisers in other processes, and how they search."""

    pool: Pool
    decoding: Decoding
    guards: Guards


@dataclass(frozen=True)
class Sharing:
    """How an evaluation is shared.

    Attributes:
        system: What is evaluated; of several processes it is the same.
        pooled: Who recognises for this process; None if it does so itself.
        shard: Its share of the rows.
    """

    system: System
    pooled: Pooled | None = None
    shard: Shard = WHOLE

    @cached_property
    def recipe(self) -> str:
        """Digest of what decides predictions beside row and setting."""
        return recipe_digest(self.system.identity)


Sets = Mapping[str, Sequence[Utterance]]


def predict_into(
    folder: Path, sets: Sets, setting: Setting, sharing: Sharing, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Recognises the rows of this process's share that no journal of a folder has, and adds them to its own.

    Raises:
        DataError: A journal cannot be read or written, or another process does this share.
        KikitoriError: The pool has no recognisers.
    """
    rows, keys = _rows(sets), _keys(sets, setting, sharing)
    part, shard = sharing.shard.part, sharing.shard
    with locked(folder, part):
        journal = folder / f"{JOURNAL}{part}"
        size = append_line(journal, "", len(whole_lines(journal, mend=True)))  # it is there, whatever there is to do
        known = _read(folder)
        mine = shard.of(range(len(rows)))
        left = [place for place in mine if keys[place] not in known]
        progress(len(mine) - len(left))
        for number, prediction in _predicted([rows[place][1] for place in left], setting, sharing):
            place = left[number]
            line = json.dumps({"key": keys[place], "row": prediction_line(rows[place][0], prediction)})
            size = append_line(journal, line + "\n", size)
            progress(1)


def gather(folder: Path, sets: Sets, setting: Setting, sharing: Sharing) -> dict[str, list[Prediction]] | None:
    """The predictions of all rows, in their order; None while other processes have some to do.

    Raises:
        DataError: A journal cannot be read.
    """
    known, keys = _read(folder), _keys(sets, setting, sharing)
    if not all(key in known for key in keys):
        return None
    predictions: dict[str, list[Prediction]] = {name: [] for name in sets}
    for key, (name, utterance) in zip(keys, _rows(sets), strict=True):
        predictions[name].append(replace(known[key], utterance=utterance))
    return predictions


def forget(folder: Path, shard: Shard = WHOLE) -> bool:
    """Removes the journals of an evaluation whose report is written.

    Returns:
        Whether no other process was faster: of those that end at the same time one alone tells of the report.
    """
    first = folder / f"{JOURNAL}{Shard(1, shard.count).part}"
    try:
        first.unlink()
    except OSError:
        return False
    for journal in _journals(folder):
        journal.unlink(missing_ok=True)
    return True


def _journals(folder: Path) -> list[Path]:
    return [folder / JOURNAL, *sorted(folder.glob(f"{JOURNAL}.*"))]


def _read(folder: Path) -> dict[str, Prediction]:
    """Predictions by the keys of their rows."""
    found: dict[str, Prediction] = {}
    for journal in _journals(folder):
        for number, line in enumerate(whole_lines(journal).splitlines(), 1):
            try:
                values = json.loads(line)
                key, row = str(values["key"]), str(values["row"])
            except (ValueError, KeyError, TypeError):
                where = f"{journal}:{number}"
                raise DataError("no line of an evaluation", where=where, remedy="remove the file") from None
            found[key] = read_prediction(row, f"{journal}:{number}")[1]
    return found


def _rows(sets: Sets) -> list[tuple[str, Utterance]]:
    return [(name, utterance) for name, utterances in sets.items() for utterance in utterances]


def _keys(sets: Sets, setting: Setting, sharing: Sharing) -> list[str]:
    """What the prediction of each row depends on."""
    corruption = None if setting.corruption is None else (setting.corruption.name, setting.seed)
    return [_key((sharing.recipe, corruption, place), *row) for place, row in enumerate(_rows(sets))]


def _key(setting: object, name: str, utterance: Utterance) -> str:
    audio = utterance.audio_filepath
    try:
        status = audio.stat()
        file = (status.st_size, status.st_mtime_ns)
    except OSError:
        file = (-1, -1)
    row = (name, utterance.utt_id, str(audio), utterance.offset, utterance.duration, *(utterance.byte_range or ()))
    return recipe_digest({"setting": setting, "row": row, "file": file})


def _predicted(utterances: Sequence[Utterance], setting: Setting, sharing: Sharing) -> Iterator[tuple[int, Prediction]]:
    pooled = sharing.pooled
    if pooled is None:
        yield from predict(sharing.system, utterances, batch_size=setting.batch_size, heard=setting.heard)
        return
    work = partial(_work, decoding=pooled.decoding, guards=pooled.guards, setting=setting)
    for number, found in each(pooled.pool, work, utterances, [utterance.duration for utterance in utterances]):
        yield number, _lost(utterances[number], found) if isinstance(found, LostError) else found


def _work(
    recognizer: Recognizer, utterances: Sequence[Utterance], *, decoding: Decoding, guards: Guards, setting: Setting
) -> list[Prediction]:
    system = Searching(recognizer, decoding, guards)
    found = dict(predict(system, utterances, batch_size=setting.batch_size, heard=setting.heard))
    return [found[number] for number in range(len(utterances))]


def _lost(utterance: Utterance, error: LostError) -> Prediction:
    named = LostError(error.what, where=utterance.audio_filepath, remedy=error.remedy)
    return Prediction(utterance, "", 0.0, error=str(named))
