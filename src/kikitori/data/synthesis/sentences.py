"""Sentences to be read aloud: chosen from text corpora, written as they are spoken, none of them kept for measuring."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

from kikitori.data.overlap import HeldOut
from kikitori.errors import ConfigError
from kikitori.text.corpus import read_lines, speak_titles
from kikitori.text.forms.text_form import TextForm, in_form
from kikitori.text.words import writes_spaces

CHARACTERS = {
    "en": "A-Za-z ,.;:!?'’‘“”\"()—-",
    "ja": "ぁ-ゖァ-ヺー々〆一-鿿、。！？「」『』（）…・ ",
}
"""Allowed by default: what is read aloud in one way, so neither digits nor symbols."""

_AMBIGUOUS = re.compile(r"\.(?=.*\w)|\b[A-Z]{2,}\b")  # abbreviations; Roman numerals and words in capitals


@dataclass(frozen=True)
class Sentence:
    """A sentence as the manifest has it, as the engine is given it, and the reading where the two differ."""

    text: str
    spoken: str
    reading: str | None = None


@dataclass(frozen=True)
class Choice:
    """Which lines of a corpus are read aloud, and how they are written.

    Attributes:
        column: Column of a tab-separated file that holds the text, from 1; 0 takes the line.
        spoken_column: Column that is spoken instead, such as a reading in kana; 0 speaks the text.
        shortest: Fewest words, or characters where a language writes no spaces.
        longest: Most of them.
        characters: All that a sentence may hold, as inside the brackets of a regular expression; empty takes those of
            the language, if it has any here, or else all.
        avoid: Transcripts with which no sentence may share a run of words.
    """

    language: str = "en"
    column: int = 0
    spoken_column: int = 0
    shortest: int = 3
    longest: int = 25
    characters: str = ""
    text_form: TextForm = "as_is"
    spoken_titles: bool = False
    avoid: HeldOut = field(default_factory=HeldOut)

    def __post_init__(self) -> None:
        """Checks that the characters are some."""
        try:
            _ = self._allowed
        except re.error as error:
            raise ConfigError(
                f"not what stands inside [] in a regular expression ({error})", where="--characters"
            ) from None

    def sentence(self, line: str) -> Sentence | None:
        """The sentence of a line; None if it is not to be read aloud."""
        cells = line.split("\t")
        text, spoken = (self._cell(line, cells, column) for column in (self.column, self.spoken_column or self.column))
        if not text or not spoken or not self._is_suitable(spoken) or self.avoid.shares(text):
            return None
        written = text if self.text_form == "as_is" else in_form(text, self.text_form)
        return Sentence(written, spoken, spoken if self.spoken_column else None)

    def _cell(self, line: str, cells: Sequence[str], column: int) -> str:
        text = (cells[column - 1] if column <= len(cells) else "") if column else line
        return speak_titles(text.strip()) if self.spoken_titles else text.strip()

    def _is_suitable(self, text: str) -> bool:
        length = len(text.split() if writes_spaces(self.language) else text)
        return (
            self.shortest <= length <= self.longest
            and self._allowed.fullmatch(text) is not None
            and not _AMBIGUOUS.search(text)
        )

    @cached_property
    def _allowed(self) -> re.Pattern[str]:
        characters = self.characters or CHARACTERS.get(self.language)
        return re.compile(rf"[{characters}]+" if characters else r"[^\x00-\x1f]+")


def choose_sentences(files: Sequence[Path], choice: Choice, *, max_lines: int = 0) -> list[Sentence]:
    """Sentences of text files: the first suitable one of each of `max_lines` stretches of equal length; 0 takes all.

    Raises:
        DataError: A file cannot be read.
    """
    lines = list(chain.from_iterable(read_lines(path) for path in files))
    count = min(max_lines or len(lines), len(lines))
    edges = [index * len(lines) // count for index in range(count + 1)] if count else []
    found = (next(_suitable(lines[start:end], choice), None) for start, end in pairwise(edges))
    return [sentence for sentence in found if sentence is not None]


def _suitable(lines: Sequence[str], choice: Choice) -> Iterator[Sentence]:
    return (sentence for line in lines if (sentence := choice.sentence(line)) is not None)
