"""The internal language model of a speech LLM: what its decoder expects of a transcript without its speech.

An attention decoder trained on transcripts learns their language beside their speech. Where another language model
judges the same labels, subtracting the decoder's own counts the language once (papers.md B3.1; Meng et al. 2021,
Zeineldeen et al. 2021). It is the decoder with a context of speech that is zero.

We run the LLM behind its text prompt alone, without a speech position and without a memory. For cross-attention that is
the zeroed context exactly: without biases in its projections, zero speech adds zero to every layer. In the prefix
interface and in merged attention speech takes part in the softmax, and any number of zero positions would draw weight
from the text and depend on how long the utterance is; so there none stand. The result depends on the labels alone.
"""

from kikitori.errors import ModelError
from kikitori.model.speech_llm import SpeechLLM
from kikitori.scorers.language_model import LanguageModel, LMSequenceScorer
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import INTERNAL_LM
from kikitori.text.units import TokenizerUnits


def internal_scorer(model: SpeechLLM, num_labels: int) -> LMScorer:
    """The internal language model as a scorer of label sequences, named `ilm`; a search subtracts it.

    Raises:
        ModelError: Nothing but speech stands before the first label, or the LLM cannot go label by label.
    """
    *before, bos = _prompt(model)
    eos = model.config.eos_id
    return LMScorer(model.llm, num_labels, bos_id=bos, eos_id=eos, before=before, name=INTERNAL_LM)


def internal_sequence_scorer(model: SpeechLLM, units: TokenizerUnits) -> LMSequenceScorer:
    """The internal language model as a scorer of whole hypotheses in its own label units, named `ilm`.

    Raises:
        ModelError: Nothing but speech stands before the first label.
    """
    lm = LanguageModel(model.llm, units, _prompt(model), model.config.eos_id)
    return LMSequenceScorer(INTERNAL_LM, lm, units)


def _prompt(model: SpeechLLM) -> tuple[int, ...]:
    prompt = (*model.config.prompt_before, *model.config.prompt_after)
    if not prompt:
        raise ModelError(
            "without speech nothing stands before the first label: there is no internal language model",
            where=INTERNAL_LM,
            remedy="take a model whose prompt has a BOS or a text",
        )
    return prompt
