"""Which scorers take part in a search: by name, with a scale each.

    score(y) = Σ scale_i · score_i(y)

Scales are natural: what a score is multiplied by, so one below 0 subtracts (a prior, the internal language model).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from pydantic import AfterValidator, ConfigDict
from pydantic.dataclasses import dataclass

from kikitori.text.forms.text_form import TextForm

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
CTC, SPEECH_LLM, INTERNAL_LM, LENGTH = "ctc", "speech_llm", "ilm", "length"
"""Scorers that need nothing beside the recogniser: CTC head, decoder, its internal language model, number of labels."""
PHONES = "phones"
"""The CTC head over phones, with a lexicon."""
LM, NGRAM, PRIOR = "lm", "ngram", "prior"
"""External scorers of one-pass search; rescoring takes any name."""
HOTWORDS = "hotwords"
"""The letters of the user's own phrases, where some are given."""
HOTWORD_SCALE = 0.4
"""Of every search that does not name it."""


@dataclass(frozen=True, config=STRICT)
class LMOptions:
    """A language model that scores texts.

    Attributes:
        path: Its folder, run or hub id; of a speech LLM its LLM; or file of an n-gram over labels or words, .arpa,
            .arpa.gz, .arpa.xz or .ngram.
        text_form: Form that texts get first, `lower` or `en_plain`; `as_is` leaves them to its tokenizer.
        prompt: Text before each hypothesis, such as words of the domain.
    """

    path: str
    text_form: TextForm = "as_is"
    prompt: str = ""


@dataclass(frozen=True, config=STRICT)
class ScorerOptions:
    """A scorer of a search.

    Attributes:
        scale: What its score is multiplied by, below 0 to subtract it; None takes the default of the search.
        path: Of an LM its folder, run or hub id; file of an n-gram or of a prior. None takes what lies in the model
            folder.
        text_form: Of an LM over other label units: form that texts get first, `lower` or `en_plain`.
        prompt: Of such an LM: text before each hypothesis.
        prior: Whether it is a label prior, where its name is not `prior`.
        lm: Of a prior: name of the language model whose label units it counts; None for the recogniser's.
    """

    scale: float | None = None
    path: str | None = None
    text_form: TextForm = "as_is"
    prompt: str = ""
    prior: bool = False
    lm: str | None = None

    def lm_options(self, path: str) -> LMOptions:
        """As a language model that lies at `path`."""
        return LMOptions(path, self.text_form, self.prompt)

    @property
    def changed(self) -> tuple[str, ...]:
        """Fields beside the scale that are not as by default."""
        return tuple(f.name for f in fields(self) if f.name != "scale" and getattr(self, f.name) != f.default)


Scorers = dict[str, ScorerOptions]


def scale_of(scorers: Mapping[str, ScorerOptions], name: str, default: float) -> float:
    """The scale of a scorer, the default where it has none."""
    found = scorers.get(name)
    return default if found is None or found.scale is None else found.scale


def with_scales(scorers: Mapping[str, ScorerOptions], scales: Mapping[str, float]) -> Scorers:
    """Scorers with other scales, also of those that were not named."""
    from dataclasses import replace

    changed = {name: replace(scorers.get(name, ScorerOptions()), scale=scale) for name, scale in scales.items()}
    return {**scorers, **changed}


def one_of(known: Mapping[str, Sequence[str]]) -> AfterValidator:
    """Takes the scorers that a search has, by name with what may be said of each beside its scale."""

    def check(scorers: Scorers) -> Scorers:
        for name, scorer in scorers.items():
            if name not in known:
                raise ValueError(f"this search has no scorer '{name}' (there are {', '.join(known)})")
            for field in scorer.changed:
                if field not in known[name]:
                    raise ValueError(f"'{field}' is no option of the scorer '{name}' in this search")
        return scorers

    return AfterValidator(check)
