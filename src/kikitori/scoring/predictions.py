"""`predictions.jsonl` read again: what an evaluation has found, hypotheses and their scores included."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field
from pydantic.dataclasses import dataclass

from kikitori.data.manifest import BYTES
from kikitori.errors import ConfigError, DataError
from kikitori.io.config import validate
from kikitori.scorers.options import CTC
from kikitori.scoring.report import Prediction
from kikitori.types import Hypothesis, Utterance

_ByteRange = Annotated[list[int], Field(min_length=2, max_length=2)]
_IGNORE = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=_IGNORE)
class _Candidate:
    text: str
    labels: list[int]
    score: float | None  # JSON has no -inf
    scores: dict[str, float | None] = Field(validation_alias=AliasChoices("scores", "shares"))  # their old name


@dataclass(frozen=True, config=_IGNORE)
class _Row:
    audio_filepath: str
    duration: float
    text: str | None
    pred_text: str
    time: float
    id: str
    set: str
    nbest: list[_Candidate]
    offset: float = 0.0
    byte_range: _ByteRange | None = Field(default=None, validation_alias=BYTES)
    speaker: str | None = None
    language: str | None = None
    error: str | None = None
    flags: list[str] = Field(default_factory=list)
    reasons: dict[str, str] = Field(default_factory=dict)
    ctc_agreement: float | None = None
    llm_passes: int = 0
    speech_positions: int | None = None


def read_predictions(path: Path) -> dict[str, list[Prediction]]:
    """Predictions by the name of their set, in the order of the file.

    Raises:
        DataError: There is no such file, or a line is no row of an evaluation; the line is named.
    """
    sets: dict[str, list[Prediction]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    name, prediction = read_prediction(line, f"{path}:{number}")
                    sets.setdefault(name, []).append(prediction)
    except UnicodeDecodeError:
        raise DataError("not a UTF-8 text file", where=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from None
    if not sets:
        raise DataError("it has no rows", where=path, remedy="give the predictions.jsonl of kikitori evaluate")
    return sets


def read_report(file: Path) -> dict[str, Any]:
    """The values of a `report.json`; none of a file that is missing or is no report."""
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def read_evaluations(paths: Sequence[Path]) -> dict[str, list[Prediction]]:
    """Predictions of several evaluations by set; sets of the same name are told apart by the folders of their files.

    Raises:
        DataError: A file is missing, or holds no predictions.
    """
    several = [(path.parent, read_predictions(path)) for path in dict.fromkeys(paths)]
    times = Counter(name for _, sets in several for name in sets)

    def unique(folder: Path, name: str, sets: Mapping[str, Sequence[Prediction]]) -> str:
        if times[name] == 1:
            return name
        return f"{folder}" if len(sets) == 1 else f"{folder}: {name}"

    return {unique(folder, name, sets): rows for folder, sets in several for name, rows in sets.items()}


def merged_lists(several: Sequence[Mapping[str, Sequence[Prediction]]]) -> dict[str, list[Prediction]]:
    """The n-best lists of several searches over the same speech as one list for each utterance.

    Its first hypotheses, and all that is no hypothesis, are those of the first search; the others follow where they
    have other labels. Of the same labels the larger score of CTC counts, since pruning only ever loses paths.

    Raises:
        DataError: Two searches disagree about what was said.
    """
    merged: dict[str, dict[tuple[str, float, int], Prediction]] = {}
    for sets in several:
        for name, rows in sets.items():
            members, seen = merged.setdefault(name, {}), Counter[tuple[str, float]]()
            for row in rows:
                place = (row.utterance.utt_id, row.utterance.offset)
                key = (*place, seen[place])
                seen[place] += 1
                members[key] = _joined(members[key], row) if key in members else row
    return {name: [*members.values()] for name, members in merged.items()}


def _joined(one: Prediction, other: Prediction) -> Prediction:
    if one.utterance.text != other.utterance.text:
        raise DataError("two references", where=one.utterance.utt_id, remedy="name evaluations of the same manifest")
    found: dict[tuple[int, ...], Hypothesis] = {}
    for hypothesis in (*one.nbest, *other.nbest):
        if hypothesis.scores:
            known = found.get(hypothesis.labels)
            found[hypothesis.labels] = hypothesis if known is None else _with_best_ctc(known, hypothesis)
    return replace(one, nbest=tuple(found.values()) or one.nbest)


def _with_best_ctc(one: Hypothesis, other: Hypothesis) -> Hypothesis:
    scores = {**other.scores, **one.scores}
    if CTC in one.scores and CTC in other.scores:
        scores[CTC] = max(one.scores[CTC], other.scores[CTC])
    return replace(one, scores=scores)


def read_prediction(line: str, where: str) -> tuple[str, Prediction]:
    """A line of predictions: the name of its set, and the prediction.

    Raises:
        DataError: It is no row of an evaluation; `where` says which.
    """
    remedy = "write the file again with kikitori evaluate"
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})", where=where, remedy=remedy) from None
    if not isinstance(values, dict):
        raise DataError("not a JSON object", where=where, remedy=remedy)
    try:
        row = validate(_Row, values, where)
    except ConfigError as error:
        raise DataError(error.what, where=error.where, remedy=remedy) from None
    if not row.nbest and row.error is None:
        raise DataError("it has no hypothesis", where=where, remedy=remedy)
    fields = {*_Row.__dataclass_fields__, BYTES}
    utterance = Utterance(
        audio_filepath=Path(row.audio_filepath),
        duration=row.duration,
        text=row.text,
        offset=row.offset,
        utt_id=row.id,
        language=row.language,
        speaker=row.speaker,
        byte_range=None if row.byte_range is None else (row.byte_range[0], row.byte_range[1]),
        extra={key: value for key, value in values.items() if key not in fields},
    )
    nbest = tuple(
        Hypothesis(
            labels=tuple(candidate.labels),
            text=candidate.text,
            score=_log(candidate.score),
            llm_passes=row.llm_passes,
            speech_positions=row.speech_positions,
            scores={name: _log(score) for name, score in candidate.scores.items()},
        )
        for candidate in row.nbest
    )
    return row.set, Prediction(
        utterance,
        row.pred_text,
        row.time,
        error=row.error,
        llm_passes=row.llm_passes,
        flags=tuple(row.flags),
        speech_positions=row.speech_positions,
        nbest=nbest,
        reasons=row.reasons,
        ctc_agreement=row.ctc_agreement,
    )


def _log(value: float | None) -> float:
    return -inf if value is None else value
