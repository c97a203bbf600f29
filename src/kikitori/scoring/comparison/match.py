"""Predictions of several systems brought together by utterance, so that each is scored on the same rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from kikitori.errors import DataError
from kikitori.scoring.report import Prediction
from kikitori.types import Utterance

Sets = Mapping[str, Sequence[Prediction]]
"""Predictions by set."""
Missing = Literal["refuse", "delete"]
"""What becomes of rows that a system lacks: an error, or an empty prediction, whose words count as deletions."""
MISSING = "missing"
"""Error of rows that a system lacks."""
NAMED = 5
"""So many rows are named in an error."""
_Key = tuple[str, str, float]


def match(
    systems: Mapping[str, Sets], *, references: Sets | None = None, missing: Missing = "refuse"
) -> dict[str, dict[str, list[Prediction]]]:
    """The systems, each with the same sets of the same utterances in the same order, which is that of the first.

    Utterances are known by set, id and offset; where systems name their sets differently, by id and offset alone, and
    sets have the names that the first system gives them. Everything about an utterance is as the first has it.
    References, rows whose predictions do not matter, come before the first system: all of them are scored, no others,
    and texts that systems have themselves do not count.

    Raises:
        DataError: A system has an utterance twice, lacks one or has one without a reference, or two systems disagree
            about what was said.
    """
    everything = ({} if references is None else {"--reference": references}) | dict(systems)
    same_names = len({frozenset(sets) for sets in everything.values()}) == 1
    found = {name: _by_key(name, sets, same_names) for name, sets in everything.items()}
    given = None if references is None else found.pop("--reference")
    known = {key: (set_name, row.utterance) for key, (set_name, row) in (given or {}).items()}
    for name, rows in found.items():
        for key, (set_name, row) in rows.items():
            if given is not None and key not in given:
                remedy = "check --reference"
                raise DataError("it has no reference", where=f"{name}: {row.utterance.utt_id}", remedy=remedy)
            _, utterance = known.setdefault(key, (set_name, row.utterance))
            if given is None and utterance.text != row.utterance.text:
                raise DataError(
                    "its reference is another than that of the systems before it",
                    where=f"{name}: {row.utterance.utt_id}",
                    remedy="compare predictions of the same manifest",
                )
    for name, rows in found.items():
        lacking = [key for key in known if key not in rows]
        if lacking and missing == "refuse":
            names = dict(zip(known, telling_names([utterance for _, utterance in known.values()]), strict=True))
            raise DataError(
                f"{len(lacking)} of {len(known)} utterances are missing: {_named([names[key] for key in lacking])}",
                where=name,
                remedy="predict them, or count their words as deletions with --missing delete",
            )
    matched: dict[str, dict[str, list[Prediction]]] = {}
    for name, rows in found.items():
        sets = matched.setdefault(name, {})
        for key, (set_name, utterance) in known.items():
            row = rows[key][1] if key in rows else Prediction(utterance, "", 0.0, error=MISSING)
            sets.setdefault(set_name, []).append(replace(row, utterance=utterance))
    return matched


def telling_names(utterances: Sequence[Utterance]) -> list[str]:
    """The id of each utterance; where several have the same one, such as stretches of a recording, with its start."""
    times = Counter(utterance.utt_id for utterance in utterances)
    return [
        utterance.utt_id if times[utterance.utt_id] == 1 else f"{utterance.utt_id} from {utterance.offset:g} s on"
        for utterance in utterances
    ]


def _by_key(name: str, sets: Sets, same_names: bool) -> dict[_Key, tuple[str, Prediction]]:
    rows: dict[_Key, tuple[str, Prediction]] = {}
    for set_name, predictions in sets.items():
        for row in predictions:
            key = (set_name if same_names else "", row.utterance.utt_id, row.utterance.offset)
            if key in rows:
                remedy = "leave one out" if same_names else "name the sets of all systems alike, or leave one out"
                raise DataError("it has two rows", where=f"{name}: {row.utterance.utt_id}", remedy=remedy)
            rows[key] = set_name, row
    return rows


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
