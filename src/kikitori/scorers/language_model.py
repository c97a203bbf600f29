"""A causal language model as a scorer of whole texts: its label units, what stands before a text, scores.

text → the LM's text form and label units → log-probability with the end of the sentence. Many texts that begin alike,
such as an n-best list, are scored together (`kikitori.scorers.tree`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kikitori.io.model_folder import model_folder
from kikitori.model.decoder.llm import max_positions
from kikitori.model.decoder.llm_decoder import LLMDecoder, text_decoder
from kikitori.model.decoder.probe import check_scoring
from kikitori.model.folder import load_llm
from kikitori.model.published.part import find_base
from kikitori.scorers.options import LMOptions
from kikitori.scorers.spelling import Spelling
from kikitori.scorers.tree import TreeScores, score_sequences
from kikitori.text.prompt import PLAIN, compile_prompt
from kikitori.text.units import TokenizerUnits, load_units, with_text_form
from kikitori.types import Hypothesis

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder-only LLM with its units, in the form in which it shall read texts, and its end of a text.

    It starts each text with BOS, or EOS where the units have none, and perhaps a prompt.
    """

    llm: "PreTrainedModel"
    units: TokenizerUnits
    start: tuple[int, ...]
    eos_id: int

    @property
    def most_labels(self) -> int | None:
        """Most labels of a text that the LLM has positions for; None without a limit."""
        most = max_positions(self.llm)
        return None if most is None else most - len(self.start)

    def decoder(self, batch_size: int = 1) -> LLMDecoder:
        """The LLM behind what stands before a text, for some utterances."""
        return text_decoder(self.llm, self.start, eos_id=self.eos_id, batch_size=batch_size)

    def log_probs(self, texts: Sequence[Sequence[Sequence[int]]]) -> TreeScores:
        """Scores texts in labels, those of one utterance together: natural logs, the end of the sentence included."""
        return score_sequences(self.decoder(len(texts)), texts)


@dataclass(frozen=True, eq=False)
class LMSequenceScorer:
    """A language model as a scorer of whole hypotheses; where its label units differ, texts are tokenised anew."""

    name: str
    lm: LanguageModel
    units: TokenizerUnits | None

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of some utterances, its end included."""
        spelt = Spelling(self.lm.units, self.units)
        return self.lm.log_probs([spelt(nbest) for nbest in nbests]).scores


def language_model(llm: "PreTrainedModel", units: TokenizerUnits, options: LMOptions) -> LanguageModel:
    """An LLM and its own units as the options want them.

    Raises:
        ModelError: The tokenizer takes no text form.
    """
    compiled = compile_prompt(PLAIN, units.verbatim)
    assert compiled.bos is not None  # noqa: S101  (PLAIN has one)
    prompt = units.verbatim.encode(options.prompt) if options.prompt else ()
    return LanguageModel(llm, with_text_form(units, options.text_form), (compiled.bos, *prompt), compiled.eos)


def load_language_model(
    options: LMOptions,
    device: torch.device | str = "cpu",
    check: Callable[["PreTrainedModel"], None] = check_scoring,
) -> LanguageModel:
    """Loads a language model, or that of a speech LLM, from a folder, a run or the hub.

    Args:
        options: Where it lies, and what it reads first.
        device: Where it computes.
        check: Refuses what it cannot be used for (`probe`); several uses that are checked at once share their passes.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the model is not decoder-only or does not give
            its own scores in our batches.
    """
    path = model_folder(find_base(options.path))
    with torch.inference_mode(mode=False):
        llm = load_llm(path).eval().to(device)  # type: ignore[arg-type]
    check(llm)
    return language_model(llm, load_units(path), options)
