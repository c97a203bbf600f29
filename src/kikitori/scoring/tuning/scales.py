"""Scales of a weighted sum of scores: those with the fewest word errors on n-best lists (papers.md B3.5).

Word errors of all hypotheses are counted once; a point of scales then costs a weighted sum and the best hypothesis of
every list. Sums are those of `kikitori.scorers.base.weighted`, bit by bit, so that a search with the scales found
chooses the same hypotheses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import DataError
from kikitori.scorers.base import add_scaled
from kikitori.scorers.options import CTC, LENGTH
from kikitori.scoring.metrics import counted_errors
from kikitori.scoring.report import Prediction
from kikitori.scoring.tuning.grids import DIGITS, Grid, check_grids
from kikitori.text.normalize import default_normalizer
from kikitori.types import Hypothesis

HALVINGS = 4
"""The local search ends with steps of 1/16 of the grid's."""
CLOSE = 1.01
"""Points with at most so many times the fewest errors count as flat."""
_BLOCK = 1 << 15  # sums at a time, which stay in the cache of the processor

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lists:
    """N-best lists as arrays; those whose hypotheses all have the same errors are settled and left out.

    Attributes:
        names: Of the scores, in the order of the sum.
        scores: (names, lists, hypotheses).
        missing: Start of the sums (lists, hypotheses): 0, and -inf behind the end of a list.
        errors: Word errors, (lists, hypotheses).
        settled: Errors of the lists that are left out.
    """

    names: tuple[str, ...]
    scores: Floats
    missing: Floats
    errors: Counts
    settled: int
    words: int
    utterances: int

    @property
    def first(self) -> int:
        """Errors of the hypotheses that come first in their lists."""
        return self.settled + int(self.errors[:, 0].sum())

    @property
    def oracle(self) -> int:
        """Errors of the best hypothesis of each list."""
        return self.settled + int(self.errors.min(axis=1).sum())

    def rate(self, errors: int) -> float:
        """Word error rate, as `kikitori.scoring.metrics.ErrorCounts` has it."""
        return errors / self.words if self.words else float(errors > 0)


@dataclass(frozen=True, eq=False)
class Tuned:
    """Where the fewest word errors are, and what lies around.

    Attributes:
        unscaled: Word errors with CTC alone.
        neighbours: Word errors with one scale a step of its grid lower and higher; None outside of the grid.
        points: All points of the grid, (points, names).
        point_errors: Their word errors, (points,).
        edges: Scales that lie at an end of their grid that is not 0: a wider one may have better.
    """

    scales: dict[str, float]
    errors: int
    unscaled: int
    neighbours: dict[str, tuple[int | None, int | None]]
    points: Floats
    point_errors: Counts
    edges: tuple[str, ...]

    @property
    def flat(self) -> float:
        """Share of the grid's points with at most 1 % more errors."""
        return float((self.point_errors <= CLOSE * self.errors).mean())


def read_lists(sets: Mapping[str, Sequence[Prediction]], names: Sequence[str]) -> Lists:
    """The n-best lists of predictions with what each hypothesis costs in words.

    Texts are normalised as in a report, set by set; characters count as words where there are none. Utterances without
    a reference are left out. Those that no search has scored, such as failed ones, keep their prediction. `length` is
    counted where it is missing.

    Raises:
        DataError: There is no reference, no list, or a hypothesis without one of the scores.
    """
    kept: list[tuple[Sequence[Hypothesis], list[int]]] = []
    settled = words = utterances = 0
    scored = False
    for rows in sets.values():
        form = default_normalizer(row.utterance.language for row in rows)
        for row in rows:
            if row.utterance.text is None:
                continue
            utterances += 1
            reference = row.utterance.text
            words += counted_errors(form, reference, "").reference_length
            nbest = row.nbest if any(hypothesis.scores for hypothesis in row.nbest) else ()
            _check_scores(nbest, names, row.utterance.utt_id)
            scored |= bool(nbest)
            texts = [hypothesis.text for hypothesis in nbest] or [row.pred_text]
            errors = [counted_errors(form, reference, text).errors for text in texts]
            if min(errors) == max(errors):
                settled += errors[0]
            else:
                kept.append((nbest, errors))
    if not utterances:
        raise DataError("no utterance has a reference text", remedy="tune on transcribed speech")
    if not scored:
        raise DataError("no n-best list with scores", remedy="make some with kikitori evaluate --decoding ctc_beam")
    return _arrays(kept, tuple(names), settled, words, utterances)


def error_counts(lists: Lists, points: Floats) -> Counts:
    """Word errors, (points,), of the hypotheses that scales (points, names) put first, exactly.

    What is impossible for a scorer is impossible with any scale but 0; equal sums keep the order of the list.
    """
    counts = np.full(len(points), lists.settled, np.int64)
    if not lists.errors.size:
        return counts
    block = max(1, _BLOCK // lists.errors.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(points), block):
            some = points[start : start + block]
            totals = np.repeat(lists.missing[None], len(some), axis=0)
            for scales, scores in zip(some.T, lists.scores, strict=True):
                if scales.any():
                    add_scaled(totals, scores, scales[:, None, None])
            totals[~np.isfinite(totals)] = -inf
            best = totals.argmax(axis=2)
            counts[start : start + block] += lists.errors[np.arange(len(lists.errors)), best].sum(axis=1)
    return counts


def tune(lists: Lists, grids: Mapping[str, Grid]) -> Tuned:
    """The scales with the fewest word errors: the best of all grid points, then a local search around it.

    The local search moves one or two scales by a step up or down, to the best of these points while that is better, and
    goes on with steps half as long, down to 1/16 of the grid's; it stays within the grid's ends. Of scales with equally
    many errors the smaller ones are better, by the sum of their absolute values. Nothing is left to chance.

    Raises:
        ConfigError: There are too many points, see `check_grids`.
    """
    check_grids(grids)
    chosen = [grids[name] for name in lists.names]
    points = np.array([*product(*(grid.values for grid in chosen))])
    errors = error_counts(lists, points)
    best, fewest = _best(points, errors)
    steps = np.array([grid.step for grid in chosen])
    moves = _moves(len(chosen), np.flatnonzero(steps))
    low, high = np.array([grid.values[0] for grid in chosen]), np.array([grid.values[-1] for grid in chosen])
    for halving in range(1, HALVINGS + 1):
        while True:
            around = np.clip(best + moves * steps / 2**halving, low, high).round(DIGITS)
            # The best point is one of them, and stays the best unless another is truly better.
            nearby, count = _best(np.vstack([best, around]), np.append(fewest, error_counts(lists, around)))
            if (nearby == best).all():
                break
            best, fewest = nearby, count
    return Tuned(
        scales=dict(zip(lists.names, best.tolist(), strict=True)),
        errors=fewest,
        unscaled=int(error_counts(lists, np.array([[float(name == CTC) for name in lists.names]]))[0]),
        neighbours=_neighbours(lists, best, chosen),
        points=points,
        point_errors=errors,
        edges=tuple(
            name
            for name, grid, scale in zip(lists.names, chosen, best.tolist(), strict=True)
            if grid.step and scale and scale in (grid.values[0], grid.values[-1])
        ),
    )


def plane(lists: Lists, tuned: Tuned, grids: Mapping[str, Grid], axes: Sequence[str]) -> Counts:
    """Word errors over the grids of some scales, an axis for each, the others as tuned."""
    shape = [len(grids[name].values) for name in axes]
    points = np.tile([tuned.scales[name] for name in lists.names], (prod(shape), 1))
    for name, column in zip(axes, np.array([*product(*(grids[name].values for name in axes))]).T, strict=True):
        points[:, lists.names.index(name)] = column
    return error_counts(lists, points).reshape(shape)


def _check_scores(nbest: Iterable[Hypothesis], names: Iterable[str], where: str) -> None:
    for hypothesis in nbest:
        for name in names:
            if name != LENGTH and name not in hypothesis.scores:
                known = ", ".join(hypothesis.scores) or "none"
                raise DataError(
                    f"a hypothesis has no score '{name}' (its scores: {known})",
                    where=where,
                    remedy="search with that scorer first",
                )


def _arrays(
    kept: Sequence[tuple[Sequence[Hypothesis], Sequence[int]]],
    names: tuple[str, ...],
    settled: int,
    words: int,
    utterances: int,
) -> Lists:
    longest = max((len(nbest) for nbest, _ in kept), default=1)
    scores = np.zeros((len(names), len(kept), longest))
    missing = np.full((len(kept), longest), -inf)
    errors = np.zeros((len(kept), longest), np.int64)
    for row, (nbest, counts) in enumerate(kept):
        missing[row, : len(nbest)] = 0.0
        errors[row] = max(counts)  # behind the end of the list, where nothing is chosen
        errors[row, : len(nbest)] = counts
        for number, name in enumerate(names):
            scores[number, row, : len(nbest)] = [_score(h, name) for h in nbest]
    return Lists(names, scores, missing, errors, settled, words, utterances)


def _best(points: Floats, errors: Counts) -> tuple[Floats, int]:
    """The point with the fewest errors, of equals the one with the smallest scales; and its errors."""
    places = np.flatnonzero(errors == errors.min())
    equals = points[places]
    keys = [*equals.T[::-1], *np.abs(equals).T[::-1], np.abs(equals).sum(axis=1).round(DIGITS)]
    place = places[np.lexsort(keys)[0]]
    return points[place], int(errors[place])


def _moves(scales: int, free: Iterable[int]) -> Floats:
    """Steps of one or two of the free scales, up or down, (moves, scales)."""
    unit = np.eye(scales)
    single = [sign * unit[axis] for axis in free for sign in (-1, 1)]
    pairs = [one + other for one, other in combinations(single, 2) if (one + other).any()]
    return np.array([*single, *pairs]).reshape(-1, scales)


def _neighbours(lists: Lists, best: Floats, grids: Sequence[Grid]) -> dict[str, tuple[int | None, int | None]]:
    found: dict[str, tuple[int | None, int | None]] = {}
    for place, (name, grid) in enumerate(zip(lists.names, grids, strict=True)):
        if not grid.step:
            continue
        sides: list[int | None] = []
        for step in (-grid.step, grid.step):
            point = best.copy()
            point[place] = round(point[place] + step, DIGITS)
            inside = grid.values[0] <= point[place] <= grid.values[-1]
            sides.append(int(error_counts(lists, point[None])[0]) if inside else None)
        found[name] = (sides[0], sides[1])
    return found


def _score(hypothesis: Hypothesis, name: str) -> float:
    return hypothesis.scores.get(name, float(len(hypothesis.labels))) if name == LENGTH else hypothesis.scores[name]
