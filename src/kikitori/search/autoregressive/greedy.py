"""Greedy decoding of the speech LLM: the most probable label at every step, for a batch at once."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.search.autoregressive.generate import LabelRow, write_labels

GreedyResult = LabelRow


def greedy(
    llm: PreTrainedModel,
    prefix: AssembledInput,
    *,
    eos_id: int,
    max_labels: Sequence[int],
    min_labels: int = 0,
) -> list[GreedyResult]:
    """Writes each row's most probable labels until EOS or its limit; arguments as of `write_labels`."""
    return write_labels(llm, prefix, _most_probable, eos_id=eos_id, max_labels=max_labels, min_labels=min_labels)


def _most_probable(log_probs: Tensor, _: Sequence[int]) -> Tensor:
    return log_probs.argmax(dim=-1)
