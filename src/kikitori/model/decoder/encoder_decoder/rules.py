"""What is known of transcripts before any is written: the labels before them, and those that are never written."""

from collections.abc import Mapping
from dataclasses import dataclass

LANGUAGE = None
"""In a prompt, the place of the label of the language."""


@dataclass(frozen=True)
class TranscriptRules:
    """What is known of transcripts before any is written.

    Attributes:
        prompt: The labels before a transcript, `LANGUAGE` where that of its language stands.
        eos: The label that ends a transcript.
        positions: Most labels of prompt and transcript together.
        languages: The label of each language by its code, such as `en`; empty for a model that is told none.
        suppressed: Labels that are never written.
        suppressed_first: Labels that no transcript begins with.
        alignment_heads: Layer and number of the heads of cross-attention that follow the speech; empty if they are not
            known.
        previous: The label before text that stands before the transcript ("start of previous"), None if it has none.
    """

    prompt: tuple[int | None, ...]
    eos: int
    positions: int
    languages: Mapping[str, int]
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    alignment_heads: tuple[tuple[int, int], ...] = ()
    previous: int | None = None

    @property
    def start(self) -> int:
        """The first label, of Whisper "start of transcript"; behind it alone a language is found out."""
        return self.prompt_in(0)[0]

    def prompt_in(self, language: int) -> list[int]:
        """The labels before a transcript, with that of its language, which some models leave out."""
        return [language if label is LANGUAGE else label for label in self.prompt]
