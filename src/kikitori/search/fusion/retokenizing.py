"""A re-tokenising language model: over any label units, it scores what a recogniser with units of its own writes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kikitori.errors import ModelError
from kikitori.scorers.language_model import LanguageModel
from kikitori.text.units import TokenizerUnits, equal_units

WORD_STARTS = ("▁", "Ġ", " ")
"""What a label that begins a word begins with, in SentencePiece and in byte-level BPE."""

Labels = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class RetokenizingLM:
    """A language model and the label units of the recogniser whose hypotheses it scores.

    The LM reads units equal to its own as they are, and the text of others.
    """

    lm: LanguageModel
    units: TokenizerUnits

    @cached_property
    def equal(self) -> bool:
        """Whether the LM has the recogniser's units."""
        return equal_units(self.units, self.lm.units)

    @cached_property
    def word_starts(self) -> NDArray[np.bool_]:
        """For each label whether the word before it is complete, (labels,)."""
        tokens = self.units.tokenizer.convert_ids_to_tokens(list(range(self.units.size)))
        return np.array([str(token).startswith(WORD_STARTS) for token in tokens], np.bool_)

    def tokens(self, labels: Labels) -> tuple[int, ...]:
        """Labels as the LM's tokens, those of their text tokenised as a whole."""
        return labels if self.equal else tuple(self.lm.units.encode(self.units.decode(labels)))

    def check(self, where: object) -> None:
        """Refuses a language model that cannot write what the recogniser writes.

        Raises:
            ModelError: It has no tokens for most letters of the recogniser's units.
        """
        unknown = self.lm.units.tokenizer.unk_token_id
        letters = sorted({character for character in self.units.decode(range(self.units.size)) if character.isalpha()})
        unwritten = [each for each in letters if unknown in (tokens := self.lm.units.encode(each)) or not tokens]
        if 2 * len(unwritten) > len(letters):
            raise ModelError(
                f"it cannot write {len(unwritten)} of the recogniser's {len(letters)} letters, as '{unwritten[0]}'",
                where=where,
                remedy="choose another text_form (as_is, lower, en_plain) or an LM for texts in that form",
            )
