"""Causal language models over the label units of a search, label by label: keys and values in a tree of labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model.decoder.llm_decoder import text_decoder
from kikitori.model.decoder.probe import check_decoding
from kikitori.model.decoder.tree import LabelTree
from kikitori.model.folder import load_llm
from kikitori.scorers.decoder import DecoderScorer, DecoderScorerState
from kikitori.scorers.options import LM
from kikitori.text.units import TokenizerUnits, differing_labels, load_units

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LMScorer(DecoderScorer):
    """A causal language model over the label units of the search: all hypotheses stand behind the same text.

    The labels are the first of its vocabulary; before the first stand a prompt, if there is one, and BOS.

    Raises:
        ModelError: The LLM cannot go label by label (`check_decoding`).
    """

    def __init__(
        self,
        llm: "PreTrainedModel",
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


def load_lm_scorer(path_or_id: str, over: TokenizerUnits, device: torch.device) -> LMScorer:
    """A language model over label units, from its folder or the hub.

    Raises:
        ModelError: It is missing, damaged or over other label units.
    """
    units = load_units(path_or_id)
    if different := [*differing_labels(over, units)]:
        raise ModelError(
            f"other label units than the recogniser's: {len(different)} of {over.size} differ",
            where=path_or_id,
            remedy="label-wise fusion needs equal units; delayed fusion is the way for an LM with others",
        )
    llm = load_llm(path_or_id).eval().to(device)  # type: ignore[arg-type]
    if (known := int(llm.get_input_embeddings().num_embeddings)) < units.size:
        raise ModelError(
            f"the tokenizer has {units.size} labels, the model {known}",
            where=path_or_id,
            remedy="copy the folder again",
        )
    bos = units.eos_id if units.bos_id is None else units.bos_id
    return LMScorer(llm, over.size, bos_id=bos, eos_id=units.eos_id)
