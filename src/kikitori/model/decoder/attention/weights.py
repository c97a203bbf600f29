"""Where an LLM looks: a training pass with its attention weights written out."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kikitori.model.decoder.llm import checked_lengths, cleared, position_ids, run_body
from kikitori.model.decoder.memory import MERGED, Memory
from kikitori.model.features import valid_mask


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights of a pass, by LLM layer.

    Attributes:
        text: From each position of the LLM's input to each, (batch, heads, n, n).
        speech: From each of them to each of the speech's in a memory, (batch, heads, n, positions); empty where the
            speech stands in the input. With merged attention the two together sum to 1, with cross-attention each.
    """

    text: tuple[Tensor, ...]
    speech: tuple[Tensor, ...]


def forward_attention(
    llm: PreTrainedModel, embeds: Tensor, lengths: Tensor, memory: Memory | None = None
) -> tuple[Tensor, Attention]:
    """As `llm.forward`, with attention written out, which takes heads * n * n numbers per row and layer."""
    lengths = checked_lengths(lengths, embeds, least=1)
    valid = valid_mask(lengths, embeds.shape[1])
    positions = position_ids(torch.zeros_like(lengths), lengths, embeds.shape[1])
    usual = llm.config._attn_implementation
    if usual != MERGED:
        llm.set_attn_implementation("eager")  # the fast kernels do not tell
    try:
        output, reading = run_body(
            llm, cleared(embeds, valid), valid.long(), positions, None, memory, output_attentions=True
        )
    finally:
        llm.set_attn_implementation(usual)
    speech = () if reading is None else tuple(reading.weights[layer] for layer in sorted(reading.weights))
    return output.last_hidden_state, Attention(tuple(output.attentions), speech)
