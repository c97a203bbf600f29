"""Error rates of several systems on the same utterances, and whether the differences are more than chance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from kikitori.scoring import paired
from kikitori.scoring.comparison.match import MISSING, Sets
from kikitori.scoring.errors.breakdown import Row, scored_rows
from kikitori.scoring.errors.search import list_errors
from kikitori.scoring.metrics import ErrorCounts, confidence_interval
from kikitori.text.normalize import WITHOUT_WORDS

CERTAIN = 0.05
"""A difference with a smaller p-value, and with an interval without 0, is called more than chance."""
FEWEST = 20
"""With fewer utterances nothing is: both tests are about many."""
CONFUSED = 15
"""Confusions that are listed."""
_Counts = Sequence[ErrorCounts]


@dataclass(frozen=True)
class Score:
    """Errors of a system on a set, or on all sets together.

    Attributes:
        set_name: None of all together.
        words: Counted in words, or in characters where the normalizer leaves no words.
        word_interval: 95 % bootstrap interval of their rate, resampling utterances.
        change: Beside the first system; None for the first, and where no words were said.
        oracle: Errors of the best hypotheses of the n-best lists; None where no list has two.
    """

    system: str
    set_name: str | None
    utterances: int
    words: ErrorCounts
    word_interval: tuple[float, float]
    characters: ErrorCounts
    character_interval: tuple[float, float]
    change: paired.Comparison | None
    oracle: int | None


@dataclass(frozen=True)
class Speed:
    """What a system took, and for how many rows it has no text; `rtfx` is None where no time was measured."""

    system: str
    rtfx: float | None
    failed: int
    missing: int


@dataclass(frozen=True)
class Comparison:
    """Systems scored with one normalizer.

    Attributes:
        form: Name of the normalizer, or of those of the sets.
        rows: Of each system, in the same order.
        scores: Set by set where there are several, and of all together last.
        speeds: System by system.
    """

    form: str
    rows: Mapping[str, Sequence[Row]]
    scores: tuple[Score, ...]
    speeds: tuple[Speed, ...]

    @property
    def systems(self) -> list[str]:
        """Their names."""
        return list(self.rows)

    @property
    def unit(self) -> str:
        """What errors are counted in: characters where no set has words."""
        return "character" if {*self.form.split(", ")} <= {*WITHOUT_WORDS} else "word"

    @property
    def rate(self) -> str:
        """The name of the rate that counts."""
        return "WER" if self.unit == "word" else "CER"

    @property
    def totals(self) -> list[Score]:
        """The score of each system on all sets together."""
        return [score for score in self.scores if score.set_name is None]


def compare(systems: Mapping[str, Sets], normalizer: str | None = None) -> Comparison:
    """Scores systems whose rows are matched (`match`); without a normalizer each set gets that of its languages.

    Raises:
        DataError: No utterance has a reference.
    """
    rows = {name: scored_rows(sets, normalizer) for name, sets in systems.items()}
    first = next(iter(rows))
    names = list(dict.fromkeys(row.set_name for row in rows[first]))
    scores = []
    for set_name in (*(names if len(names) > 1 else ()), None):
        members = {system: [row for row in each if set_name in (row.set_name, None)] for system, each in rows.items()}
        scores += [_score(system, set_name, some, members[first], system == first) for system, some in members.items()]
    form = ", ".join(sorted({row.form for row in rows[first]}))
    return Comparison(form, rows, tuple(scores), tuple(_speed(name, sets) for name, sets in systems.items()))


def macro_mean(found: Comparison, system: str) -> float:
    """The mean of a system's rates over the sets, each of which counts the same."""
    rates = [score.words.rate for score in found.scores if score.system == system and score.set_name is not None]
    rates = rates or [score.words.rate for score in found.totals if score.system == system]
    return fsum(rates) / len(rates)


def compared(one: Sequence[Row], other: Sequence[Row]) -> paired.Comparison | None:
    """How the second of two systems differs from the first on the same rows; None where no words were said."""
    if not any(row.reference for row in one):
        return None
    return paired.compare([row.words for row in one], [row.words for row in other])


def is_certain(change: paired.Comparison, utterances: int) -> bool:
    """Whether a difference is more than chance, by both tests."""
    low, high = change.interval
    return utterances >= FEWEST and change.p_value < CERTAIN and (low > 0.0 or high < 0.0)


def confused_words(found: Comparison) -> list[tuple[str, str, list[int]]]:
    """The most frequent substitutions of all systems together: said, recognised, how often in each system."""
    counts = {
        system: Counter(pair for row in rows for pair in row.pairs if None not in pair and pair[0] != pair[1])
        for system, rows in found.rows.items()
    }
    together = sum(counts.values(), Counter[tuple[str | None, str | None]]())
    frequent = sorted(together.items(), key=lambda item: (-item[1], str(item[0])))[:CONFUSED]
    return [
        (str(said), str(written), [each[said, written] for each in counts.values()]) for (said, written), _ in frequent
    ]


def _score(system: str, set_name: str | None, rows: Sequence[Row], first: Sequence[Row], is_first: bool) -> Score:
    words, characters = [row.words for row in rows], [row.characters for row in rows]
    lists = list_errors(rows)
    return Score(
        system=system,
        set_name=set_name,
        utterances=len(rows),
        words=sum(words, ErrorCounts()),
        word_interval=confidence_interval(words),
        characters=sum(characters, ErrorCounts()),
        character_interval=confidence_interval(characters),
        change=None if is_first else compared(first, rows),
        oracle=lists.oracle[lists.longest] if lists.longest > 1 else None,
    )


def _speed(system: str, sets: Sets) -> Speed:
    rows = [row for members in sets.values() for row in members]
    audio = fsum(row.utterance.duration for row in rows if row.error is None)
    compute = fsum(row.time for row in rows)
    failed = sum(row.error not in (None, MISSING) for row in rows)
    return Speed(system, audio / compute if compute > 0.0 else None, failed, sum(r.error == MISSING for r in rows))
