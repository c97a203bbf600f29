"""Perplexity of a language model on text: per label, per word and per character.

exp(−Σ log p / n), where Σ log p is that of all lines with their ends and n counts labels, words or characters, and one
end for each line. Perplexity per label compares models over the same units; per word or character, those over any units
that have read the same words, hence the same text form (papers.md B4.3).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf

from kikitori.errors import DataError, counted
from kikitori.scorers.language_model import LanguageModel
from kikitori.scoring.table import text_table
from kikitori.text.units import WORD_MARK

LINES = 256
"""Lines that are scored together."""


@dataclass(frozen=True)
class Perplexity:
    """What a language model makes of some text: natural log-probability of all lines with their ends, and counts.

    Labels go without ends; words and characters are those of the form that the model reads, one space between words.
    """

    log_prob: float
    lines: int
    labels: int
    words: int
    characters: int

    @property
    def per_label(self) -> float:
        """Per label, ends included."""
        return self._per(self.labels)

    @property
    def per_word(self) -> float:
        """Per word, ends included."""
        return self._per(self.words)

    @property
    def per_character(self) -> float:
        """Per character, ends included."""
        return self._per(self.characters)

    def _per(self, count: int) -> float:
        loss = -self.log_prob / (count + self.lines)
        return exp(loss) if loss < 700 else inf


def perplexity(
    lm: LanguageModel, lines: Iterable[tuple[str, str]], progress: Callable[[int], None] = lambda _: None
) -> Perplexity:
    """Scores lines of text (where it stands, for errors, and the text itself), each by itself.

    Lines that hold nothing for the language model are left out; `progress` gets the number of lines just done.

    Raises:
        DataError: A line is longer than the language model can read, or there is no text.
    """
    kept = [(where, _form(lm, text), lm.units.encode(text)) for where, text in lines]
    kept = [line for line in kept if line[2]]
    if not kept:
        raise DataError("no text to score", remedy="check the files and the text form")
    for where, _, labels in kept:
        if lm.most_labels is not None and len(labels) > lm.most_labels:
            problem = f"{len(labels)} labels; the language model can read {lm.most_labels}"
            raise DataError(problem, where=where, remedy="split the line")
    scores = _scores(lm, [labels for _, _, labels in kept], progress)
    return Perplexity(
        log_prob=fsum(scores),
        lines=len(kept),
        labels=sum(len(labels) for _, _, labels in kept),
        words=sum(len(text.split()) for _, text, _ in kept),
        characters=sum(len(text) for _, text, _ in kept),
    )


def format_perplexity(found: Perplexity) -> str:
    """The three perplexities with what they are per, as aligned lines."""
    counts = [
        ("token", found.per_label, found.labels),
        ("word", found.per_word, found.words),
        ("character", found.per_character, found.characters),
    ]
    rows = [["per", "perplexity", "count"], *([name, f"{value:.2f}", str(count)] for name, value, count in counts)]
    return (
        f"{text_table(rows)}\n{counted(found.lines, 'line')}, their ends included: log-probability {found.log_prob:.2f}"
    )


def _scores(lm: LanguageModel, texts: Sequence[Sequence[int]], progress: Callable[[int], None]) -> list[float]:
    scores = [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), LINES):
        batch = order[start : start + LINES]
        found = lm.log_probs([[texts[index]] for index in batch]).scores
        for index, (score,) in zip(batch, found, strict=True):
            scores[index] = score
        progress(len(batch))
    return scores


def _form(lm: LanguageModel, text: str) -> str:
    """The text as the language model reads it, with plain single spaces."""
    return " ".join(lm.units.normalize(text).replace(WORD_MARK, " ").split())
