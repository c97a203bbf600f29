"""Which words go wrong, and how: near misses, words run together or taken apart, and words that a text never has.

Aligned utterances go in, counts come out. A near miss is what a language model or a lexicon could mend: most letters
are right. Whether a word is known is a matter of a text, such as the transcripts of training or the corpus of an LM.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from kikitori.scoring.errors.breakdown import Pairs, Row, units_of
from kikitori.scoring.metrics import count_errors

FREQUENT = 30
"""Confusions that are listed of each kind."""
FUNCTION_WORDS = 100
"""So many of a text's most frequent words count as function words."""
_FEW, _PART = 2, 3  # letters that may be wrong in a near miss: two, or one in three
_JOINED = 3  # words that may have run together
_DRIFT = 4  # how far words may have moved where several errors follow each other

Words = Counter[str]
_Key = TypeVar("_Key", str, tuple[str, str])


@dataclass(frozen=True)
class Boundary:
    """Words run together, or one taken apart: all letters are right (`exact`), or nearly so. `errors` counts words."""

    reference: str
    predicted: str
    exact: bool
    errors: int


@dataclass(frozen=True)
class Confusions:
    """What was taken for what.

    Attributes:
        near: Substituted words of which most letters are right, see `is_near`.
        substitutions: The most frequent: said, recognised, how often.
    """

    substituted: int
    near: int
    substitutions: tuple[tuple[str, str, int], ...]
    deletions: tuple[tuple[str, int], ...]
    insertions: tuple[tuple[str, int], ...]
    boundaries: tuple[Boundary, ...]


@dataclass(frozen=True)
class WordClass:
    """Words of the references that a text has about equally often (`name` says how often), by what became of them."""

    name: str
    correct: int
    near: int
    substituted: int
    deleted: int

    @property
    def words(self) -> int:
        """All of them."""
        return self.correct + self.errors

    @property
    def errors(self) -> int:
        """Those that went wrong."""
        return self.near + self.substituted + self.deleted


@dataclass(frozen=True)
class Known:
    """Errors by what a text knows.

    Attributes:
        by_count: Words of the references by how often the text has them, never first.
        by_rank: Its most frequent words, mostly function words, and all others.
        invented: Wrong words of the outputs that the text does not have.
    """

    words: int
    distinct: int
    by_count: tuple[WordClass, ...]
    by_rank: tuple[WordClass, ...]
    wrong: int
    invented: int
    invented_near: int


def count_words(lines: Iterable[str], form: str) -> Words:
    """How often each word comes up in raw text, normalised by the name of a normalizer."""
    counts = Words()
    for line in lines:
        counts.update(units_of(form, line))
    return counts


def letter_distance(one: str, other: str) -> int:
    """Fewest letters to replace, drop or add."""
    return count_errors(one, other).errors


def is_near(said: str, written: str) -> bool:
    """Whether at most two letters or a third of the word are wrong, and at least half of the letters are right."""
    distance = letter_distance(said, written)
    few = distance <= _FEW or _PART * distance <= len(said)
    return few and 2 * distance <= max(len(said), len(written))


def confusions(rows: Sequence[Row]) -> Confusions:
    """What was taken for what."""
    pairs = Counter(pair for row in rows for pair in row.pairs if pair[0] != pair[1])
    substituted = {(said, written): n for (said, written), n in pairs.items() if said and written}
    return Confusions(
        substituted=sum(substituted.values()),
        near=sum(times for pair, times in substituted.items() if is_near(*pair)),
        substitutions=tuple((*pair, times) for pair, times in _frequent(substituted)),
        deletions=tuple(_frequent({said: n for (said, written), n in pairs.items() if said and written is None})),
        insertions=tuple(_frequent({written: n for (said, written), n in pairs.items() if written and said is None})),
        boundaries=tuple(found for row in rows for found in boundaries(row.pairs)),
    )


def boundaries(pairs: Pairs) -> list[Boundary]:
    """Words run together or taken apart, of an aligned utterance; each word counts once.

    Looked for where errors follow each other, first with all letters right, then with most of them right, and then only
    if no single word fits as well.
    """
    found = []
    for wrong, stretch in groupby(pairs, lambda pair: pair[0] != pair[1]):
        if wrong:
            errors = [*stretch]
            said = [word for word, _ in errors if word is not None]
            written = [word for _, word in errors if word is not None]
            found += _boundaries(said, written)
    return found


def known_words(rows: Sequence[Row], text: Words) -> Known:
    """Errors by what a text knows: how often it has the words that were said, and whether the wrong ones."""
    function_words = {word for word, _ in _ranked(text)[:FUNCTION_WORDS]}
    by_count: dict[str, Counter[str]] = {name: Counter() for name in _count_names(max(text.values(), default=0))}
    by_rank: dict[str, Counter[str]] = {f"the {FUNCTION_WORDS} most frequent": Counter(), "others": Counter()}
    frequent, others = by_rank.values()
    invented: Counter[bool] = Counter()  # by whether they are near misses
    wrong = 0
    for row in rows:
        for said, written in row.pairs:
            near = said is not None and written is not None and is_near(said, written)
            if said is not None:
                outcome = _outcome(said, written, near)
                by_count[_count_name(text[said])][outcome] += 1
                (frequent if said in function_words else others)[outcome] += 1
            if written is not None and written != said:
                wrong += 1
                invented[near] += written not in text
    return Known(
        text.total(),
        len(text),
        tuple(_word_class(name, counts) for name, counts in by_count.items()),
        tuple(_word_class(name, counts) for name, counts in by_rank.items()),
        wrong,
        invented.total(),
        invented[True],
    )


def _boundaries(said: Sequence[str], written: Sequence[str]) -> list[Boundary]:
    """Those of a stretch of errors."""
    found, free_said, free_written = [], [True] * len(said), [True] * len(written)
    sizes = [size for more in range(2, _JOINED + 1) for size in ((more, 1), (1, more))]
    for exact in (True, False):
        for start in range(len(said)):
            for place in range(max(0, start - _DRIFT), min(len(written), start + _DRIFT + 1)):
                for first, second in sizes:
                    here, there = slice(start, start + first), slice(place, place + second)
                    left, right = said[here], written[there]
                    whole = len(left) == first and len(right) == second
                    if whole and all(free_said[here]) and all(free_written[there]) and _fits(left, right, exact):
                        free_said[here], free_written[there] = [False] * first, [False] * second
                        found.append(Boundary(" ".join(left), " ".join(right), exact, max(first, second)))
    return found


def _fits(said: Sequence[str], written: Sequence[str], exact: bool) -> bool:
    one, other = "".join(said), "".join(written)
    if exact or one == other:
        return one == other
    if not is_near(one, other):
        return False
    alone = min(letter_distance(left, right) for left in said for right in written)
    return letter_distance(one, other) < alone


def _frequent(counts: Mapping[_Key, int]) -> list[tuple[_Key, int]]:
    return _ranked(counts)[:FREQUENT]


def _ranked(counts: Mapping[_Key, int]) -> list[tuple[_Key, int]]:
    """The most frequent first, equally frequent ones in their own order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _outcome(said: str, written: str | None, near: bool) -> str:
    if written is None:
        return "deleted"
    return "correct" if said == written else "near" if near else "substituted"


def _word_class(name: str, counts: Counter[str]) -> WordClass:
    return WordClass(name, counts["correct"], counts["near"], counts["substituted"], counts["deleted"])


def _count_names(most: int) -> list[str]:
    """Classes up to that of the most frequent word."""
    return ["never", *(_count_name(10**digits) for digits in range(len(str(most)) if most else 0))]


def _count_name(count: int) -> str:
    """By the number of digits: never, 1 to 9, 10 to 99, ..."""
    digits = len(str(count))
    return f"{10 ** (digits - 1):,} to {10**digits - 1:,} times" if count else "never"
