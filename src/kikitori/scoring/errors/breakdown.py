"""Word errors by utterance: which sets, speakers, lengths and speaking rates have them, and how long outputs are.

Predictions per named set go in, error counts of groups of utterances come out. Everything is counted after
normalization, in words, or in characters where the normalizer leaves no words (Japanese).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum, inf

import numpy as np

from kikitori.errors import DataError
from kikitori.scoring.metrics import ErrorCounts, align_words, char_errors, confidence_interval, count_errors
from kikitori.scoring.report import MAX_ALIGNED_PAIRS, Prediction
from kikitori.text.normalize import WITHOUT_WORDS, default_normalizer, normalize

SECONDS = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)
WORDS = (5.0, 10.0, 20.0, 40.0)
"""Where one group of utterances ends and the next begins."""
QUARTILES = (0.25, 0.5, 0.75)
SHORT, LONG = 0.5, 1.5
"""Outputs with at most, and at least, so many times the words of their reference."""

Pairs = tuple[tuple[str | None, str | None], ...]


@dataclass(frozen=True)
class Row:
    """An utterance that has a reference, after normalization; "words" are the units that errors are counted in.

    Attributes:
        form: Name of the normalizer.
        pairs: Both aligned, None for a missing side; empty where they are too long for that.
    """

    set_name: str
    prediction: Prediction
    form: str
    reference: tuple[str, ...]
    predicted: tuple[str, ...]
    pairs: Pairs
    words: ErrorCounts
    characters: ErrorCounts

    @property
    def seconds(self) -> float:
        """Of audio."""
        return self.prediction.utterance.duration


@dataclass(frozen=True)
class Group:
    """Utterances that have something in common, which `name` tells, and their errors.

    Attributes:
        interval: 95 % bootstrap interval of the rate of word errors, resampling utterances.
    """

    name: str
    utterances: int
    seconds: float
    words: ErrorCounts
    characters: ErrorCounts
    interval: tuple[float, float]


@dataclass(frozen=True)
class Lengths:
    """How long outputs are beside their references, in words.

    Attributes:
        difference: By how many words an output is longer or shorter than its reference, on average.
        empty: Outputs without words for references with some.
        short: Outputs, not empty, with at most half the words of their reference.
        long: Outputs with at least one and a half times the words, and more of them.
        cut: Words missing at the end of outputs.
    """

    reference: int
    predicted: int
    difference: float
    equal: int
    empty: int
    short: int
    long: int
    cut: int


def units_of(form: str, text: str) -> tuple[str, ...]:
    """A raw text in the words that errors are counted in: normalized, and characters where there are no words."""
    normalized = normalize(form, text)
    return tuple(normalized) if form in WITHOUT_WORDS else tuple(normalized.split())


def scored_rows(sets: Mapping[str, Sequence[Prediction]], normalizer: str | None = None) -> list[Row]:
    """The utterances of all sets that have a reference; without a normalizer each set gets that of its languages.

    Raises:
        DataError: There is none.
    """
    rows = []
    for name, predictions in sets.items():
        form = normalizer or default_normalizer(prediction.utterance.language for prediction in predictions)
        rows += [_row(name, form, each) for each in predictions if each.utterance.text is not None]
    if not rows:
        raise DataError("no utterance has a reference text", remedy="evaluate on transcribed speech")
    return rows


def group(name: str, rows: Sequence[Row]) -> Group:
    """Some utterances together."""
    counts = [row.words for row in rows]
    characters = sum((row.characters for row in rows), ErrorCounts())
    seconds = fsum(row.seconds for row in rows)
    return Group(name, len(rows), seconds, sum(counts, ErrorCounts()), characters, confidence_interval(counts))


def grouped(rows: Iterable[Row], names: Callable[[Row], Iterable[str]]) -> list[Group]:
    """Utterances by the names they go by, none or several each, in the order in which names come up."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        for name in names(row):
            members.setdefault(name, []).append(row)
    return [group(name, some) for name, some in members.items()]


def by_set(rows: Sequence[Row]) -> list[Group]:
    """Utterances by set."""
    return grouped(rows, lambda row: [row.set_name])


def by_speaker(rows: Sequence[Row]) -> list[Group]:
    """Utterances whose speaker has a name, the speakers with the highest rates first."""
    speakers = grouped(rows, lambda row: [row.prediction.utterance.speaker or ""])
    return sorted((each for each in speakers if each.name), key=lambda each: -each.words.rate)


def by_flag(rows: Sequence[Row]) -> list[Group]:
    """Utterances by their flags and by `failed`, those with none of both left out."""
    return grouped(rows, lambda row: [*row.prediction.flags, *(["failed"] if row.prediction.error else [])])


def by_seconds(rows: Sequence[Row]) -> list[Group]:
    """Utterances by their duration."""
    return _between(rows, lambda row: row.seconds, SECONDS, "s")


def by_words(rows: Sequence[Row]) -> list[Group]:
    """Utterances by the words of their references."""
    return _between(rows, lambda row: float(len(row.reference)), WORDS, "words")


def by_rate(rows: Sequence[Row]) -> list[Group]:
    """Utterances by their words per second, a quarter of them in each group."""
    rates = [_rate(row) for row in rows]
    edges = np.quantile(rates, QUARTILES).round(2).tolist()
    return _between(rows, _rate, [*dict.fromkeys(edges)], "words/s")


def lengths(rows: Sequence[Row]) -> Lengths:
    """How long outputs are beside their references."""
    sizes = [(len(row.reference), len(row.predicted)) for row in rows]
    return Lengths(
        reference=sum(said for said, _ in sizes),
        predicted=sum(written for _, written in sizes),
        difference=sum(abs(said - written) for said, written in sizes) / len(sizes) if sizes else 0.0,
        equal=sum(said == written for said, written in sizes),
        empty=sum(said > 0 == written for said, written in sizes),
        short=sum(0 < written <= SHORT * said for said, written in sizes),
        long=sum(written > said and written >= LONG * said for said, written in sizes),
        cut=sum(map(_cut, rows)),
    )


def _row(set_name: str, form: str, prediction: Prediction) -> Row:
    reference = units_of(form, prediction.utterance.text or "")
    predicted = units_of(form, prediction.pred_text)
    said, written = " ".join(reference), " ".join(predicted)
    fits = len(reference) * len(predicted) <= MAX_ALIGNED_PAIRS
    pairs = tuple(align_words(said, written)) if fits else ()
    counts = count_errors(reference, predicted), char_errors(said, written)
    return Row(set_name, prediction, form, reference, predicted, pairs, *counts)


def _between(rows: Sequence[Row], value: Callable[[Row], float], edges: Sequence[float], unit: str) -> list[Group]:
    """Utterances by a value, each group from one edge up to the next; groups without utterances are left out."""
    found = []
    for low, high in pairwise([-inf, *edges, inf]):
        members = [row for row in rows if low <= value(row) < high]
        if members:
            name = f"under {high:g}" if low == -inf else f"{low:g} and more" if high == inf else f"{low:g} to {high:g}"
            found.append(group(f"{name} {unit}", members))
    return found


def _rate(row: Row) -> float:
    return len(row.reference) / row.seconds if row.seconds > 0.0 else 0.0


def _cut(row: Row) -> int:
    """Words missing at the end, of outputs that have some."""
    if not row.predicted:
        return 0
    kept = [place for place, (_, written) in enumerate(row.pairs) if written is not None]
    return len(row.pairs) - 1 - kept[-1] if kept else 0
