"""Options of the searches that go over the results of another one."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from kikitori.scorers.options import (
    CTC,
    HOTWORDS,
    INTERNAL_LM,
    NGRAM,
    PHONES,
    PRIOR,
    SPEECH_LLM,
    STRICT,
    Scorers,
    scale_of,
)
from kikitori.search.options.autoregressive import BeamSearch, GreedySearch, JointSearch, VLLMSearch
from kikitori.search.options.base import Need, NotNegative, Scored
from kikitori.search.options.frames import CTCBeamSearch, CTCGreedySearch, LexiconSearch
from kikitori.search.pruning import Count
from kikitori.types import DecoderName

DraftSearch = CTCGreedySearch | CTCBeamSearch | LexiconSearch
"""What may make drafts for a speech LLM."""
WIDE = CTCBeamSearch(beam=64, nbest=64)
"""What makes hypotheses for rescoring where nothing else is said."""


def _by_ctc_beam(values: object) -> object:
    """The options of a first search, which is `ctc_beam` unless they say otherwise."""
    return {"search": CTCBeamSearch.search, **values} if isinstance(values, dict) else values


@dataclass(frozen=True, config=STRICT)
class RescoringSearch(Scored):
    """The hypotheses of a CTC beam search in another order, see `kikitori.search.rescore`.

    Attributes:
        decoder: As of `GreedySearch`; of the first search too.
        first: The search that makes the hypotheses: that of CTC, `lexicon`, or `beam`, `joint`, `vllm` of the decoder.
        scorers: By any name language models, n-grams and priors; and `ctc`, `phones` (the CTC head over phones, with
            the lexicon at `path`, or that of the model folder), `speech_llm`, `ilm` (its internal language model),
            `length` (the number of labels). The one that made the hypotheses has scale 1, CTC or the decoder. What is
            named is computed, also with scale 0. Behind `lexicon` there is its `ngram`, and `length` counts words.
    """

    length_exponent: ClassVar[float] = 0.0
    search: Literal["rescoring"] = "rescoring"
    decoder: DecoderName | None = None
    first: Annotated[
        Annotated[CTCBeamSearch | LexiconSearch | BeamSearch | JointSearch | VLLMSearch, Field(discriminator="search")],
        BeforeValidator(_by_ctc_beam),
    ] = Field(default_factory=lambda: WIDE)
    scorers: Scorers = Field(default_factory=dict)

    @property
    def autoregressive(self) -> bool:
        """Whether the decoder wrote the hypotheses."""
        return self.first.autoregressive

    @property
    def needs(self) -> frozenset[Need]:
        """Those of the first search, and what further scorers need."""
        decoder: frozenset[Need] = frozenset({"decoder"} if {SPEECH_LLM, INTERNAL_LM} & {*self.scorers} else ())
        ctc: frozenset[Need] = frozenset({"ctc"} if CTC in self.scorers and self.autoregressive else ())
        phones: frozenset[Need] = frozenset({"phones"} if PHONES in self.scorers else ())
        return self.first.needs | decoder | ctc | phones

    @property
    def first_scores(self) -> tuple[str, ...]:
        """Scores beside CTC's that hypotheses have from the first search."""
        if self.autoregressive:
            return (SPEECH_LLM,)
        return (NGRAM,) if "phones" in self.first.needs else ()

    def scale(self, name: str) -> float:
        """The scale of a scorer."""
        return scale_of(self.scorers, name, float(name == self.own))

    @property
    def hotword_scale(self) -> float:
        """What a letter of a hotword adds, where there are hotwords: what it adds in the first search."""
        return scale_of(self.scorers, HOTWORDS, self.first.hotword_scale)

    @property
    def own(self) -> str:
        """The scorer that made the hypotheses."""
        return SPEECH_LLM if self.autoregressive else CTC

    @property
    def priors(self) -> Scorers:
        """The label priors among the scorers."""
        return {name: each for name, each in self.scorers.items() if each.path and (each.prior or name == PRIOR)}

    @property
    def lms(self) -> Scorers:
        """The language models and n-grams among the scorers."""
        others = {PHONES, *self.priors}
        return {name: each for name, each in self.scorers.items() if each.path and name not in others}

    @property
    def scales(self) -> dict[str, float]:
        """The scales by name; that of what made the hypotheses is 1 where none is given."""
        return {self.own: self.scale(self.own), **{name: self.scale(name) for name in self.scorers}}


@dataclass(frozen=True, config=STRICT)
class SpeculativeSearch:
    """What `greedy` writes, in fewer passes over drafts of a faster search, see `autoregressive.speculative`.

    Attributes:
        search: Name.
        decoder: As of `GreedySearch`.
        max_labels: Most labels per utterance; None derives it from the duration.
        min_labels: Fewest labels per utterance; None takes the model's.
        draft: The search that makes the drafts; None takes those that the LLM reads beside the speech, if it does, and
            else `ctc_greedy`.
    """

    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["speculative"] = "speculative"
    decoder: DecoderName | None = None
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    draft: Annotated[DraftSearch, Field(discriminator="search")] | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The decoder, and what makes the drafts."""
        drafts = CTCGreedySearch.needs if self.draft is None else self.draft.needs
        return frozenset[Need]({"decoder"}) | drafts


def _greedily(values: object) -> object:
    """The options of a first search, which is `greedy`."""
    return {"search": GreedySearch.search, **values} if isinstance(values, dict) else values


def _by_joint(values: object) -> object:
    """The options of a second search, which is `joint` unless they say otherwise."""
    return {"search": JointSearch.search, **values} if isinstance(values, dict) else values


@dataclass(frozen=True, config=STRICT)
class CascadeSearch:
    """Greedy search, and a wider one for what is in doubt, see `kikitori.search.autoregressive.cascade`.

    Attributes:
        decoder: As of `GreedySearch`; of both searches.
        first: The greedy search.
        second: The search for what is in doubt.
        least_log_prob: Without doubt each label has at least this log-probability (natural log), the end included.
        most_ctc_gap: Without doubt CTC's best path is by no more than this likelier than the text, for each of its
            letters (natural log).
    """

    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["cascade"] = "cascade"
    decoder: DecoderName | None = None
    first: Annotated[GreedySearch, BeforeValidator(_greedily)] = GreedySearch()
    second: Annotated[
        Annotated[BeamSearch | JointSearch | RescoringSearch, Field(discriminator="search")],
        BeforeValidator(_by_joint),
    ] = Field(default_factory=JointSearch)
    least_log_prob: Annotated[float, Field(le=0.0)] = -1.5
    most_ctc_gap: Annotated[float, Field(ge=0.0)] = 0.3

    @property
    def needs(self) -> frozenset[Need]:
        """The decoder, a CTC head, and what the second search takes."""
        return frozenset[Need]({"decoder", "ctc"}) | self.second.needs

    @property
    def hotword_scale(self) -> float:
        """That of the second search."""
        return self.second.hotword_scale
