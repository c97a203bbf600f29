"""The decoder of a speech LLM, which has heard the speech, as a scorer: label by label, and of whole hypotheses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import num_embeddings
from kikitori.model.decoder.tree import LabelTree
from kikitori.scorers.lm import LMScorer, LMState, finite
from kikitori.scorers.options import SPEECH_LLM
from kikitori.scorers.tree import score_sequences
from kikitori.types import Hypothesis


class SpeechLLMScorer(LMScorer):
    """An LLM that has heard the speech, whatever the interface: hypotheses stand behind each utterance's speech prompt.

    Args:
        llm: The LLM of a speech LLM.
        prefix: What it reads before the first label, a row for each utterance.
        num_labels: Labels of the search, which are the first of the LLM's vocabulary.
        eos_id: What ends a transcript; as a label within one it is impossible.
        allowed: The labels of each utterance, (utterances, labels) bool: what is left over is impossible and is no
            part of the softmax (papers.md B3.4); None allows all.
        name: Its name among the scores.

    Raises:
        ModelError: The LLM's cache cannot be forked, or it has fewer labels than the search.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        prefix: AssembledInput,
        num_labels: int,
        *,
        eos_id: int,
        allowed: Tensor | None = None,
        name: str = SPEECH_LLM,
    ) -> None:
        super().__init__(llm, num_labels, bos_id=eos_id, eos_id=eos_id, name=name)
        if (known := num_embeddings(llm)) < num_labels:
            raise ModelError(
                f"the CTC head has {num_labels} labels, the LLM {known}",
                where=type(llm).__name__,
                remedy="give both the same label units",
            )
        self._prefix = prefix
        self._allowed = None if allowed is None else torch.nn.functional.pad(allowed, (0, 1), value=True).to(llm.device)

    def start(self, batch: int) -> LMState:
        """Reads the speech prompts.

        Raises:
            ModelError: There is another number of them.
        """
        prefix = self._prefix
        if batch != len(prefix.lengths):
            raise ModelError(f"a search over {batch} utterances, {len(prefix.lengths)} of which were heard")
        tree = LabelTree(self._llm, prefix.embeds, prefix.lengths, prefix.memory)
        return self._behind(tree, torch.arange(batch, device=self._llm.device))

    def _log_probs(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        if self._allowed is None:
            log_probs = super()._log_probs(logits, prefixes)
        else:
            found = self._columns(logits.to(torch.promote_types(logits.dtype, torch.float32)))
            mask = self._allowed[prefixes]
            found.masked_fill_(~(mask if found.ndim == 2 else mask[:, None]), -inf)
            log_probs = found - finite(found.logsumexp(dim=-1, keepdim=True), self._llm)
        if self._eos < self._num_labels:
            log_probs[..., self._eos] = -inf
        return log_probs


@dataclass(frozen=True, eq=False)
class SpeechLLMSequenceScorer:
    """The decoder as a scorer of whole hypotheses of the utterances that it has heard.

    Attributes:
        llm: The LLM of a speech LLM.
        prefix: What it reads before the first label, a row for each utterance.
        eos_id: What ends a transcript.
        name: Its name among the scores.
    """

    llm: PreTrainedModel
    prefix: AssembledInput
    eos_id: int
    name: str = SPEECH_LLM

    def scores(self, nbests: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """The natural log-probability of each hypothesis of the utterances, its end included."""
        labels = [[hypothesis.labels for hypothesis in nbest] for nbest in nbests]
        return score_sequences(self.llm, self.prefix, labels, eos_id=self.eos_id).scores
