"""Fillers, the sounds of hesitation that some transcripts have and others leave out, by language.

They are found where they stand alone, between spaces or punctuation: えー is none in ねえー, nor is uh in uh-huh.
"""

import re
from dataclasses import dataclass

from kikitori.text.forms.languages import primary_language

VERSION = 1
"""Grows whenever other words count as fillers; reports carry it."""
_EN = r"(?i:uh+m*|um+|erm|hm+|(?<!\d )mm+|mhm|huh)|[Ee]r"
_JA = "えーっと|えーと|えっとー?|えと|えー+|あのー+|そのー+|うーんと?|んーと?|うー+|あー+|まー+"


def _alone(words: str) -> re.Pattern[str]:
    """Some words that touch no others, with the comma and the space behind them."""
    return re.compile(rf"(?<![\w'’-])(?:(?:{words})(?![\w'’-])[,，、]?\s*)+")


_ALONE = {"en": _alone(_EN), "ja": _alone(f"(?:{_JA})+")}
_EACH = {"en": re.compile(_EN), "ja": re.compile(_JA)}
LANGUAGES = tuple(_ALONE)
"""Languages whose fillers are known."""


@dataclass(frozen=True)
class FillerCounts:
    """How many fillers references and recognised texts have, and whether they are left out of what is scored."""

    reference: int
    predicted: int
    removed: bool
    version: int = VERSION

    def __str__(self) -> str:
        what = "left out" if self.removed else "as the normalizer has them"
        return f"fillers {what}: {self.reference} said, {self.predicted} recognised (list {self.version})"

    def facts(self) -> list[str]:
        """The line of a report, where there is anything to say."""
        return [str(self)] if self.removed or self.reference or self.predicted else []


def without_fillers(text: str, language: str | None) -> tuple[str, int]:
    """A text without its fillers, and how many these were; of other languages than `LANGUAGES` the text itself."""
    code = primary_language(language)
    if code not in LANGUAGES:
        return text, 0
    removed = 0

    def leave_out(found: re.Match[str]) -> str:
        nonlocal removed
        removed += len(_EACH[code].findall(found.group()))
        return ""

    return _ALONE[code].sub(leave_out, text).strip(), removed
