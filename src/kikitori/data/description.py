"""What a set of utterances looks like: how much there is, of whom, and which rows stand out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kikitori.text.units import TokenizerUnits
from kikitori.types import Utterance

UNUSUAL = 4.0
"""Times as many characters a second as the median utterance, or as few, are unusual."""


@dataclass(frozen=True)
class Description:
    """What a set looks like.

    Attributes:
        seconds: Of all utterances together.
        durations: Seconds of the shortest, the median and the longest utterance.
        without_text: Utterances whose text is empty or not known.
        speakers: How many have names.
        languages: Utterances by language code.
        rate: Characters a second of the median utterance, spaces not counted; None without text.
        unusual: Names of utterances with their rates, where those are far from the median.
        repeated_ids: Names that several utterances have.
        characters: How often each occurs in the texts.
    """

    utterances: int
    seconds: float
    durations: tuple[float, float, float]
    without_text: int
    speakers: int
    languages: Mapping[str, int]
    rate: float | None
    unusual: Mapping[str, float]
    repeated_ids: tuple[str, ...]
    characters: Counter[str]


def describe_utterances(rows: Sequence[Utterance]) -> Description:
    """Describes at least one utterance."""
    durations = [row.duration for row in rows]
    rates = {row.utt_id: _letters(row.text) / row.duration for row in rows if row.text and row.duration > 0.0}
    usual = median(rates.values()) if rates else None
    names = Counter(row.utt_id for row in rows)
    return Description(
        utterances=len(rows),
        seconds=sum(durations),
        durations=(min(durations), median(durations), max(durations)),
        without_text=sum(not row.text for row in rows),
        speakers=len({row.speaker for row in rows} - {None}),
        languages=Counter(row.language for row in rows if row.language),
        rate=usual,
        unusual={
            name: rate
            for name, rate in rates.items()
            if usual is not None and not usual / UNUSUAL <= rate <= usual * UNUSUAL
        },
        repeated_ids=tuple(name for name, count in names.items() if count > 1),
        characters=Counter(character for row in rows for character in row.text or ""),
    )


def unknown_characters(texts: Iterable[str], units: TokenizerUnits) -> Counter[str]:
    """Characters of texts, in the form of some label units, for which these have no label but that of the unknown."""
    counts = Counter(character for text in texts for character in units.normalize(text))
    unknown = units.tokenizer.unk_token_id
    if unknown is None:
        return Counter()
    return Counter(
        {each: count for each, count in counts.items() if not each.isspace() and unknown in units.encode(each)}
    )


def _letters(text: str) -> int:
    return sum(not character.isspace() for character in text)
