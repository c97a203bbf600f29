"""Causal language models over the label units of a search, label by label: keys and values in a tree of labels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.llm_decoder import text_decoder
from kikitori.model.decoder.probe import check_decoding
from kikitori.model.decoder.tree import LabelTree
from kikitori.scorers.decoder import DecoderScorer, DecoderScorerState
from kikitori.scorers.options import LM


class LMScorer(DecoderScorer):
    """A causal language model over the label units of the search: all hypotheses stand behind the same text.

    The labels are the first of its vocabulary; before the first stand a prompt, if there is one, and BOS.

    Raises:
        ModelError: The LLM cannot go label by label (`check_decoding`).
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        num_labels: int,
        *,
        bos_id: int,
        eos_id: int,
        before: Sequence[int] = (),
        name: str = LM,
    ) -> None:
        check_decoding(llm)
        super().__init__(text_decoder(llm, (*before, bos_id), eos_id=eos_id), num_labels, name=name)
        self.max_labels = None if self._most is None else self._most - len(before) - 1

    def start(self, batch: int) -> DecoderScorerState:
        """Reads what stands before the first label."""
        none = torch.zeros(batch, dtype=torch.int64, device=self._decoder.device)
        return self._behind(LabelTree(self._decoder), none)

    def _without_eos(self, log_probs: Tensor) -> Tensor:
        return log_probs
