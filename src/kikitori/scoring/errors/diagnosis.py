"""Where errors come from: groups of utterances, confusions, words that texts know, search, and what each could win."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.scoring.errors import breakdown
from kikitori.scoring.errors.breakdown import Group, Lengths, Row
from kikitori.scoring.errors.search import ListErrors, ScoreErrors, Scores, list_errors, score_errors
from kikitori.scoring.errors.words import Confusions, Known, Words, confusions, known_words


@dataclass(frozen=True)
class Bound:
    """What mending one kind of error could win at most; kinds overlap. `rate` is that of word errors without them."""

    kind: str
    errors: int
    rate: float


@dataclass(frozen=True)
class Diagnosis:
    """Where errors come from.

    Attributes:
        form: Names of the normalizers; with `nfkc_ja` characters count as words.
        groups: Utterances by what they have in common (`set`, `speaker`, `seconds`, `words`, `rate`, `flag`).
        ctc: What the CTC head prefers, references or predictions; None where it was not asked.
        unaligned: Utterances too long to be aligned, whose words are counted in groups alone.
    """

    form: str
    total: Group
    groups: Mapping[str, tuple[Group, ...]]
    confusions: Confusions
    known: Mapping[str, Known]
    lists: ListErrors
    ctc: ScoreErrors | None
    lengths: Lengths
    bounds: tuple[Bound, ...]
    unaligned: int


def diagnose(rows: Sequence[Row], texts: Mapping[str, Words], scores: Sequence[Scores] | None = None) -> Diagnosis:
    """Where errors come from, by the words of texts (`words.count_words`) and by the CTC scores of each utterance."""
    groups = {
        "set": breakdown.by_set(rows),
        "speaker": breakdown.by_speaker(rows),
        "seconds": breakdown.by_seconds(rows),
        "words": breakdown.by_words(rows),
        "rate": breakdown.by_rate(rows),
        "flag": breakdown.by_flag(rows),
    }
    total = breakdown.group("total", rows)
    confused, lists = confusions(rows), list_errors(rows)
    known = {name: known_words(rows, text) for name, text in texts.items()}
    return Diagnosis(
        form=", ".join(sorted({row.form for row in rows})),
        total=total,
        groups={name: tuple(found) for name, found in groups.items()},
        confusions=confused,
        known=known,
        lists=lists,
        ctc=None if scores is None else score_errors(rows, scores),
        lengths=breakdown.lengths(rows),
        bounds=_bounds(total, confused, known, lists),
        unaligned=sum(bool(row.reference or row.predicted) and not row.pairs for row in rows),
    )


def form_of(rows: Sequence[Row]) -> str:
    """The normalizer that all utterances have, which texts get as well.

    Raises:
        ConfigError: They have several.
    """
    forms = sorted({row.form for row in rows})
    if len(forms) > 1:
        what = f"the sets have several normalizers ({', '.join(forms)})"
        raise ConfigError(what, where="--text", remedy="diagnose one language at a time")
    return forms[0]


def _bounds(total: Group, confused: Confusions, known: Mapping[str, Known], lists: ListErrors) -> tuple[Bound, ...]:
    best = list(lists.oracle.values())
    kinds = {
        f"another order of the n-best lists (up to {lists.longest})": best[0] - best[-1] if best else 0,
        "near misses": confused.near,
        "words run together or apart": sum(each.errors for each in confused.boundaries),
        "insertions": total.words.insertions,
        "deletions": total.words.deletions,
    }
    for name, text in known.items():
        kinds[f"words that {name} never has"] = text.by_count[0].errors
        kinds[f"outputs that are no words of {name}"] = text.invented
    words = max(1, total.words.reference_length)
    return tuple(Bound(kind, errors, (total.words.errors - errors) / words) for kind, errors in kinds.items() if errors)
