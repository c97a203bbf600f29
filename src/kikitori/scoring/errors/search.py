"""What better search or better scores could win: n-best lists, their best hypotheses, and the scores of references.

If the reference is in the list below the first, the scores are to blame. If it is not there, either the search has lost
it or the scores would not have wanted it: its own score tells which (Stahlberg and Byrne 2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kikitori.scoring.errors.breakdown import Row, units_of
from kikitori.scoring.metrics import count_errors

SIZES = (1, 2, 5, 10, 20, 50)
"""Beginnings of lists of which the best hypothesis is looked for."""
TOLERANCE = 1e-3
"""Scores so close, in nats, count as equal: those of float32 networks have errors."""


@dataclass(frozen=True)
class Preference:
    """Lists in which a scorer gives more to the better hypothesis, or to the first, where these are two."""

    share: str
    better: int
    first: int


@dataclass(frozen=True)
class ListErrors:
    """What reordering n-best lists could win.

    Attributes:
        oracle: Word errors of the best hypothesis among so many, by that number; the last has all.
        below: Utterances with the reference further down in their list: the scores prefer something else.
        missing: Utterances without it in their list.
        improvable: Utterances with a better hypothesis than the first.
        preferences: What each scorer says of these; a scorer that is subtracted should prefer the first.
    """

    longest: int
    hypotheses: float
    words: int
    oracle: Mapping[int, int]
    right: int
    below: int
    missing: int
    improvable: int
    preferences: tuple[Preference, ...]


@dataclass(frozen=True)
class Scores:
    """What a scorer gives to an utterance's reference and to what was found, natural logs; -inf is impossible."""

    reference: float
    found: float


@dataclass(frozen=True)
class ScoreErrors:
    """Whose fault it is that the reference was not found, as one scorer sees it.

    Attributes:
        found: Utterances of which the reference was found.
        search: The scorer gives more to the reference: the search has lost it, or other scorers did not want it.
        scores: The scorer gives more to what was found.
        impossible: The scorer cannot give the reference at all, for example because it has too few frames for it.
        margin: By how much it prefers what was found to the reference where it does, on average, in nats.
    """

    found: int
    search: int
    scores: int
    impossible: int
    margin: float


def list_errors(rows: Sequence[Row]) -> ListErrors:
    """What reordering n-best lists could win; without a list an utterance has its prediction."""
    costs = [_costs(row) for row in rows]
    longest = max(map(len, costs), default=0)
    sizes = [*(size for size in SIZES if size < longest), longest]
    improvable, preferences = 0, dict[str, list[int]]()
    for row, errors in zip(rows, costs, strict=True):
        best = errors.index(min(errors))
        if best == 0:
            continue
        improvable += 1
        first, better = row.prediction.nbest[0].scores, row.prediction.nbest[best].scores
        for name in first.keys() & better.keys():
            counts = preferences.setdefault(name, [0, 0])
            counts[0] += better[name] > first[name]
            counts[1] += better[name] < first[name]
    right = sum(errors[0] == 0 for errors in costs)
    present = sum(min(errors) == 0 for errors in costs)
    return ListErrors(
        longest=longest,
        hypotheses=sum(map(len, costs)) / len(costs) if costs else 0.0,
        words=sum(len(row.reference) for row in rows),
        oracle={size: sum(min(errors[:size]) for errors in costs) for size in sizes},
        right=right,
        below=present - right,
        missing=len(rows) - present,
        improvable=improvable,
        preferences=tuple(Preference(name, *counts) for name, counts in sorted(preferences.items())),
    )


def score_errors(rows: Sequence[Row], scores: Sequence[Scores]) -> ScoreErrors:
    """Whose fault it is that references were not found, from the scores that one scorer gives to each utterance."""
    found = search = impossible = 0
    margins = []
    for row, score in zip(rows, scores, strict=True):
        if not row.words.errors:
            found += 1
        elif score.reference == float("-inf"):
            impossible += 1
        elif score.reference > score.found + TOLERANCE:
            search += 1
        else:
            margins.append(score.found - score.reference)
    return ScoreErrors(found, search, len(margins), impossible, sum(margins) / len(margins) if margins else 0.0)


def _costs(row: Row) -> list[int]:
    """Word errors of every hypothesis."""
    texts = [hypothesis.text for hypothesis in row.prediction.nbest] or [row.prediction.pred_text]
    # A search by phones or subwords writes the same text several times.
    known = {row.prediction.pred_text: row.words.errors}
    for text in texts:
        if text not in known:
            known[text] = count_errors(row.reference, units_of(row.form, text)).errors
    return [known[text] for text in texts]
