"""Options of the searches over the frames of a CTC head."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from kikitori.scorers.options import (
    HOTWORDS,
    INTERNAL_LM,
    LENGTH,
    LM,
    NGRAM,
    PHONES,
    PRIOR,
    SPEECH_LLM,
    STRICT,
    Scorers,
    one_of,
    scale_of,
)
from kikitori.search.options.base import OVER_LABELS, Need, Scored
from kikitori.search.pruning import Count, FramePruning, LexiconPruning
from kikitori.types import DecoderName


@dataclass(frozen=True, config=STRICT)
class CTCGreedySearch:
    """The CTC head's most probable outputs."""

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    decoder: ClassVar[None] = None
    search: Literal["ctc_greedy"] = "ctc_greedy"


@dataclass(frozen=True, config=STRICT)
class FrameBeam:
    """What the searches over the frames of the CTC head share, see `kikitori.search.ctc.beam`.

    Attributes:
        beam: Most hypotheses that are kept from frame to frame.
        nbest: Most hypotheses that are returned.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    search: str
    beam: Count = 16
    nbest: Count = 8
    pruning: FramePruning = FramePruning()


@dataclass(frozen=True, config=STRICT)
class CTCBeamSearch(FrameBeam, Scored):
    """The label sequences to which the CTC head gives most.

    CTC has the scale 1.

    Attributes:
        scorers: `hotwords` (scale 0.4, where there are some).
    """

    decoder: ClassVar[None] = None
    search: Literal["ctc_beam"] = "ctc_beam"
    scorers: Annotated[Scorers, one_of({HOTWORDS: ()})] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class ShallowFusionSearch(FrameBeam, Scored):
    """CTC beam search with a language model over the same label units, see `kikitori.search.fusion.shallow`.

    CTC has the scale 1. Scores of LM and n-gram have that of the sentence's end in them.

    Attributes:
        scorers: `lm` (scale 0.5; also the file of an n-gram), `ngram` (file of an n-gram that joins beside the LM, or
            alone where no LM is named or at hand; 0.5), `prior` (of the labels, 0), `length` (the number of labels, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {LM: 0.5, NGRAM: 0.5}
    decoder: ClassVar[None] = None
    search: Literal["shallow_fusion"] = "shallow_fusion"
    scorers: Annotated[Scorers, one_of({**OVER_LABELS, LENGTH: ()})] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class JointTimeSyncSearch(FrameBeam, Scored):
    """CTC beam search with the speech LLM as its language model, see `kikitori.search.fusion.shallow`.

    CTC has the scale 1.

    Attributes:
        decoder: As of `GreedySearch`.
        scorers: `speech_llm` (scale 0.5), `length` (0.5), `ilm`, `lm`, `ngram`, `prior` (0).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})
    autoregressive: ClassVar[bool] = True
    max_labels: ClassVar[None] = None
    min_labels: ClassVar[None] = None
    SCALES: ClassVar[Mapping[str, float]] = {SPEECH_LLM: 0.5, LENGTH: 0.5, LM: 0.5, NGRAM: 0.5}
    search: Literal["joint_time_sync"] = "joint_time_sync"
    decoder: DecoderName | None = None
    beam: Count = 8
    scorers: Annotated[Scorers, one_of({SPEECH_LLM: (), INTERNAL_LM: (), **OVER_LABELS, LENGTH: ()})] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, config=STRICT)
class DelayedFusionSearch(FrameBeam, Scored):
    """CTC beam search with a language model over any units, which scores words, see `kikitori.search.fusion.delayed`.

    CTC has the scale 1. Other scores count from when the words are scored.

    Attributes:
        trigger: When complete words are scored: after every so many frames; at every `word_end`; when the `shortest`
            hypothesis has some; or `never`, that is, when the frames are over.
        scorers: `lm` (scale 0.5), `prior` (of the recogniser's labels, 0), `length` (their number, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {LM: 0.5}
    decoder: ClassVar[None] = None
    search: Literal["delayed_fusion"] = "delayed_fusion"
    trigger: Count | Literal["word_end", "shortest", "never"] = 20
    scorers: Annotated[Scorers, one_of({LM: ("path", "text_form", "prompt"), PRIOR: ("path",), LENGTH: ()})] = Field(
        default_factory=dict
    )


def _of_lexicon_search(scorers: Scorers) -> Scorers:
    """Checks scales: the tree's lookahead is a bound from above for scales of the n-gram from 0 on alone."""
    if scale_of(scorers, NGRAM, 0.0) < 0.0:
        raise ValueError("the scale of 'ngram' has to be 0 or above")
    if scale_of(scorers, PHONES, 1.0) != 1.0:
        raise ValueError("the scale of 'phones' is 1 in this search: scale the others")
    return scorers


@dataclass(frozen=True, config=STRICT)
class LexiconSearch(Scored):
    """The sentences of known words that a CTC head over phones and a word n-gram find likeliest.

    See `kikitori.search.lexicon.search`.

    Attributes:
        scorers: `phones` (the CTC head, scale 1, with the lexicon at `path`, or `lexicon.tsv.xz` in the model folder),
            `ngram` (over words, scale 1; `words.ngram` in the model folder), `length` (the number of words, 0),
            `prior` (of phones, in every frame, 0; `phone_prior.safetensors` in the model folder).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"phones"})
    autoregressive: ClassVar[bool] = False
    length_exponent: ClassVar[float] = 0.0
    SCALES: ClassVar[Mapping[str, float]] = {NGRAM: 1.0}
    decoder: ClassVar[None] = None
    search: Literal["lexicon"] = "lexicon"
    beam: Count = 200
    nbest: Count = 32
    pruning: LexiconPruning = LexiconPruning()
    scorers: Annotated[
        Scorers,
        one_of({PHONES: ("path",), NGRAM: ("path",), PRIOR: ("path",), LENGTH: ()}),
        AfterValidator(_of_lexicon_search),
    ] = Field(default_factory=dict)
