"""Which scorers take part in a search, by name and file."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from kikitori.text.units import TextForm

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
CTC, SPEECH_LLM, INTERNAL_LM, LENGTH = "ctc", "speech_llm", "ilm", "length"
"""Names of shares that need no language model beside the recogniser."""
LM, NGRAM, PRIOR = "lm", "ngram", "prior"
"""Names of the partners' shares in one-pass search; rescoring takes any."""


@dataclass(frozen=True, config=STRICT)
class LMOptions:
    """A language model that judges hypotheses by their text.

    Attributes:
        path: Its folder or hub id; of a speech LLM its LLM; or file of an n-gram over labels or words, .arpa,
            .arpa.gz, .arpa.xz or .ngram.
        text_form: Form that texts get first, `lower` or `en_plain`; `as_is` leaves them to its tokenizer.
        prompt: Text before each hypothesis, such as words of the domain.
    """

    path: str
    text_form: TextForm = "as_is"
    prompt: str = ""


@dataclass(frozen=True, config=STRICT)
class PriorOptions:
    """A label prior that judges hypotheses.

    Attributes:
        path: Its file.
        lm: Name of the language model whose units it counts; None for the recogniser's own.
    """

    path: str
    lm: str | None = None
