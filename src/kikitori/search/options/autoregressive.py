"""Options of the searches whose labels the decoder writes."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from kikitori.scorers.options import (
    CTC,
    HOTWORDS,
    INTERNAL_LM,
    LENGTH,
    LM,
    NGRAM,
    SPEECH_LLM,
    STRICT,
    Scorers,
    one_of,
    scale_of,
)
from kikitori.search.options.base import OVER_LABELS, Need, NotNegative, Scored
from kikitori.search.pruning import Count, JointPruning, LabelPruning
from kikitori.types import DecoderName


@dataclass(frozen=True, config=STRICT)
class GreedySearch:
    """The speech LLM's most probable labels.

    Attributes:
        decoder: Which decoder of the model folder; None takes the one that was loaded, see `kikitori.load`.
        max_labels: Most labels per utterance; None derives it from the duration (see `kikitori.search.length`).
        min_labels: Fewest labels per utterance; None takes the model's.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["greedy"] = "greedy"
    decoder: DecoderName | None = None
    max_labels: Count | None = None
    min_labels: NotNegative | None = None


@dataclass(frozen=True, config=STRICT)
class SamplingSearch:
    """Labels drawn from the speech LLM; decoder and lengths as in `GreedySearch`.

    Attributes:
        temperature: Divides the logits before drawing.
        top_k: Draw from so many of the most probable labels; 0 draws from all.
        top_p: Draw from the most probable labels that together reach this probability.
        seed: Decides, together with the audio, what is drawn.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    search: Literal["sampling"] = "sampling"
    decoder: DecoderName | None = None
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_k: NotNegative = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: NotNegative = 1234


@dataclass(frozen=True, config=STRICT)
class VLLMSearch:
    """What the LLM writes on a vLLM server, see `kikitori.search.autoregressive.vllm`; lengths as in `GreedySearch`.

    Attributes:
        server: Its URL, such as `http://localhost:8000`.
        model: Name of the LLM there; by default the first that is served.
        nbest: Most hypotheses that are returned: the most probable labels, and others that are drawn.
        temperature: Of what is drawn: divides the logits.
        seed: Of what is drawn, together with the audio.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    length_exponent: ClassVar[float] = 0.0
    hotword_scale: ClassVar[float] = 0.0
    decoder: ClassVar[None] = None
    search: Literal["vllm"] = "vllm"
    server: str = ""
    model: str = ""
    nbest: Count = 1
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.7
    seed: NotNegative = 1234
    max_labels: Count | None = None
    min_labels: NotNegative | None = None


@dataclass(frozen=True, config=STRICT)
class LabelBeam:
    """What the beam searches of the speech LLM share, see `kikitori.search.autoregressive.beam`.

    Attributes:
        decoder: As of `GreedySearch`.
        beam: Most hypotheses that are kept from label to label.
        nbest: Most hypotheses that are returned.
        length_exponent: Scores are divided by so high a power of the number of labels, the end being one.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"decoder"})
    autoregressive: ClassVar[bool] = True
    search: str
    decoder: DecoderName | None = None
    beam: Count = 4
    nbest: Count = 4
    max_labels: Count | None = None
    min_labels: NotNegative | None = None
    length_exponent: Annotated[float, Field(ge=0.0)] = 0.0
    pruning: LabelPruning = LabelPruning()


@dataclass(frozen=True, config=STRICT)
class BeamSearch(LabelBeam, Scored):
    """The label sequences that the speech LLM finds most probable.

    Attributes:
        scorers: `speech_llm` (scale 1), `ilm` (its internal language model, 0), `length` (the number of labels, 0).
    """

    SCALES: ClassVar[Mapping[str, float]] = {SPEECH_LLM: 1.0}
    search: Literal["beam"] = "beam"
    length_exponent: Annotated[float, Field(ge=0.0)] = 1.0
    scorers: Annotated[Scorers, one_of({SPEECH_LLM: (), INTERNAL_LM: (), HOTWORDS: (), LENGTH: ()})] = Field(
        default_factory=dict
    )


def _sums_to_one(scorers: Scorers) -> Scorers:
    """Checks the scale of CTC where the LLM has what is missing to 1."""
    weighted = SPEECH_LLM in scorers and scorers[SPEECH_LLM].scale is not None
    if not weighted and not 0.0 <= scale_of(scorers, CTC, 0.0) <= 1.0:
        raise ValueError("the scale of 'ctc' has to be from 0 to 1, unless 'speech_llm' has one too")
    return scorers


@dataclass(frozen=True, config=STRICT)
class JointSearch(LabelBeam, Scored):
    """Beam search of the speech LLM in which the CTC head scores every hypothesis, see `autoregressive.joint`.

    Attributes:
        scorers: `ctc` (scale 0.3), `speech_llm` (what is missing to 1), `ilm`, `lm`, `ngram`, `prior`, `length` (0).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"ctc", "decoder"})
    SCALES: ClassVar[Mapping[str, float]] = {CTC: 0.3, LM: 0.5, NGRAM: 0.5}
    search: Literal["joint"] = "joint"
    pruning: JointPruning = JointPruning()
    scorers: Annotated[
        Scorers,
        one_of({CTC: (), SPEECH_LLM: (), INTERNAL_LM: (), **OVER_LABELS, LENGTH: ()}),
        AfterValidator(_sums_to_one),
    ] = Field(default_factory=dict)

    def scale(self, name: str) -> float:
        """The scale of a scorer."""
        default = 1.0 - self.scale(CTC) if name == SPEECH_LLM else self.SCALES.get(name, 0.0)
        return scale_of(self.scorers, name, default)
