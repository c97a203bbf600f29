"""The internal language model of a speech LLM: what its decoder expects of a transcript without its speech.

An attention decoder trained on transcripts learns their language beside their speech. Where another language model
judges the same labels, subtracting the decoder's own counts the language once (papers.md B3.1; Meng et al. 2021,
Zeineldeen et al. 2021). It is the decoder with a context of speech that is zero.

We run the LLM behind its text prompt alone, without a speech position and without a memory. For cross-attention that is
the zeroed context exactly: without biases in its projections, zero speech adds zero to every layer. In the prefix
interface and in merged attention speech takes part in the softmax, and any number of zero positions would draw weight
from the text and depend on how long the utterance is; so there none stand. The result depends on the labels alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from kikitori.errors import ModelError
from kikitori.model.decoder.base import Decoder
from kikitori.scorers.base import Scorer, SequenceScorer
from kikitori.scorers.decoder import DecoderScorer, DecoderSequenceScorer
from kikitori.scorers.language_model import LanguageModel, LMSequenceScorer
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import INTERNAL_LM
from kikitori.scorers.spelling import Spelling
from kikitori.text.units import TokenizerUnits

if TYPE_CHECKING:
    from kikitori.model.speech_llm import SpeechLLM


@dataclass(frozen=True)
class InternalLM:
    """The internal language model as scorers named `ilm`.

    Attributes:
        scorer: Makes that of a search, over so many labels.
        sequence_scorer: Makes that of whole hypotheses.

    Raises:
        ModelError: By either, see `internal_scorer`.
    """

    scorer: Callable[[int], Scorer[Any]]
    sequence_scorer: Callable[[], SequenceScorer]


def internal_lm(
    model: "SpeechLLM | None", decoder: Callable[[], Decoder], units: TokenizerUnits, spelling: Spelling | None = None
) -> InternalLM:
    """The internal language model of a speech LLM, or of another decoder.

    Args:
        model: The speech LLM, if it is one.
        decoder: Makes the decoder behind the speech of the batch; not called for a speech LLM.
        units: Label units of the decoder.
        spelling: From the labels of whole hypotheses to those; None where they are the same.
    """
    silent = None if model is not None else decoder().without_speech()
    if silent is not None:
        return InternalLM(
            lambda num_labels: DecoderScorer(silent, num_labels, name=INTERNAL_LM),
            lambda: DecoderSequenceScorer(silent, spelling, INTERNAL_LM),
        )
    if model is None:
        raise ModelError("the decoder has no internal language model", where=INTERNAL_LM, remedy="leave it out")
    return InternalLM(partial(internal_scorer, model), partial(internal_sequence_scorer, model, units))


def internal_scorer(model: "SpeechLLM", num_labels: int) -> LMScorer:
    """The internal language model as a scorer of label sequences, named `ilm`; a search subtracts it.

    Raises:
        ModelError: Nothing but speech stands before the first label, or the LLM cannot go label by label.
    """
    *before, bos = _prompt(model)
    eos = model.config.eos_id
    return LMScorer(model.llm, num_labels, bos_id=bos, eos_id=eos, before=before, name=INTERNAL_LM)


def internal_sequence_scorer(model: "SpeechLLM", units: TokenizerUnits) -> LMSequenceScorer:
    """The internal language model as a scorer of whole hypotheses in its own label units, named `ilm`.

    Raises:
        ModelError: Nothing but speech stands before the first label.
    """
    lm = LanguageModel(model.llm, units, _prompt(model), model.config.eos_id)
    return LMSequenceScorer(INTERNAL_LM, lm, units)


def _prompt(model: "SpeechLLM") -> tuple[int, ...]:
    prompt = (*model.config.prompt_before, *model.config.prompt_after)
    if not prompt:
        raise ModelError(
            "without speech nothing stands before the first label: there is no internal language model",
            where=INTERNAL_LM,
            remedy="take a model whose prompt has a BOS or a text",
        )
    return prompt
