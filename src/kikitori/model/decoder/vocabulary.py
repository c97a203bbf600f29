"""Another vocabulary on the body of a pre-trained LLM: new embedding and output matrices (papers.md B1.4 b)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kikitori.model.safety.config import quiet_transformers
from kikitori.text.units import TokenizerUnits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def swap_vocabulary(llm: "PreTrainedModel", units: TokenizerUnits, old: TokenizerUnits | None) -> None:
    """Gives an LLM the matrices and the configuration for other label units; tied matrices stay tied.

    A new label begins as the mean of the old rows that stand for its text; BOS and EOS begin as the old ones. What the
    old vocabulary does not say (all, if it is lost) is drawn with the mean and the deviation of the old rows.
    """
    pieces = [[] for _ in range(units.size)] if old is None else old_labels(units, old)
    model: Any = llm
    before = [[p.detach().clone() for p in layer.parameters()] for layer in embedding_layers(llm)]
    with quiet_transformers():
        model.resize_token_embeddings(units.size, mean_resizing=False)
    for layer, old_rows in zip(embedding_layers(llm), before, strict=True):
        layer.padding_idx = None  # torch would keep that row from learning
        for parameter, rows in zip(layer.parameters(), old_rows, strict=True):  # the output may have a bias
            parameter.data.copy_(_rows(rows, pieces))
    for config in (llm.config, llm.generation_config):
        if config is not None:
            config.bos_token_id, config.eos_token_id, config.pad_token_id = units.bos_id, units.eos_id, None


def embedding_layers(llm: "PreTrainedModel") -> list[Any]:
    """The input embeddings, and the output layer unless its matrix is the same."""
    embeddings, head = llm.get_input_embeddings(), llm.get_output_embeddings()
    tied = head is None or head.weight is embeddings.weight
    return [embeddings] if tied else [embeddings, head]


def old_labels(units: TokenizerUnits, old: TokenizerUnits) -> list[list[int]]:
    """For each label of `units` the labels of `old` that write the same text; none where there is no saying."""
    tokenizer, old = units.tokenizer, old.verbatim
    names = tokenizer.convert_ids_to_tokens(list(range(units.size)))
    special = {units.eos_id: old.eos_id, units.bos_id: old.eos_id if old.bos_id is None else old.bos_id}
    # Behind another label, a decoder leaves a leading space where it is.
    anchor = next((i for i in range(units.size) if str(tokenizer.decode([i])).strip().isalnum()), 0)
    shown = len(str(tokenizer.decode([anchor])))
    before = old.encode("a")
    result: list[list[int]] = []
    for label, name in enumerate(names):
        if label in special:
            result.append([special[label]])
        elif name in tokenizer.all_special_tokens:
            twin = old.special_id(name)
            result.append([] if twin is None else [twin])
        else:
            text = str(tokenizer.decode([anchor, label]))[shown:]
            result.append(old.encode(f"a{text}")[len(before) :] if text.startswith(" ") else old.encode(text))
    return result


def _rows(old: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """New rows (labels, ...) from old ones: means of those named, drawn where none is named."""
    deviation, mean = torch.std_mean(old.float(), dim=0)
    new = (mean + deviation * torch.randn(len(pieces), *old.shape[1:], device=old.device)).to(old.dtype)
    for label, labels in enumerate(pieces):
        known = [index for index in labels if index < len(old)]  # a tokenizer may have grown beyond its LLM
        if known:
            new[label] = old[known].mean(dim=0)
    return new
