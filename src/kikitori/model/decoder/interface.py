"""The interface: how the LLM gets at the speech, "prefix", "merged_attention" or "cross_attention".

In: the speech prompt of the bridge, the text prompt, the transcripts. Out: the LLM's input (`AssembledInput`). The
prefix puts the speech into that input. The other two leave text alone there and make a `Memory` of the speech, which
every LLM layer reads for itself, so that the LLM spends nothing on speech positions ("Integration vs. Combination";
the formulas are our reading of it, see docs/papers.md). Searches see no difference.

The LLM itself is not rebuilt: merged attention replaces the attention function that transformers looks up by name, and
cross-attention is a hook before each layer. Both are without parameters and without state; what they need comes with
the forward pass as the keyword `memory`. Without it the LLM is the plain text model that it was.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import AssembledInput, assemble
from kikitori.model.decoder.attention.cross_attention import CrossLayer, cross_attention
from kikitori.model.decoder.attention.merged_attention import MergedLayer, key_bias_of
from kikitori.model.decoder.attention.speech_layer import GATE_SPEED, Heads
from kikitori.model.decoder.memory import MERGED, Memory
from kikitori.model.features import mask_tail
from kikitori.text.prompt import Prompt

FAMILIES = ("gpt_neox", "llama", "qwen2", "qwen3")
"""LLMs whose layers hand the memory on to their attention, and which rotate queries half against half."""


class Interface(nn.Module):
    """From the speech prompt to the LLM's input.

    Without layers, the speech prompt stands in the LLM's input, between the parts of the text prompt. With layers, text
    alone stands there, and every LLM layer reads the speech from memory.

    Args:
        layers: None, or one for each LLM layer.
    """

    def __init__(self, layers: "Iterable[MergedLayer | CrossLayer]" = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        llm_embed: Callable[[Tensor], Tensor],
        prompt: Prompt,
        speech_embeds: Tensor,
        speech_lengths: Tensor,
        targets: Sequence[Sequence[int]] | None,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> AssembledInput:
        """Lay out prompt, speech and targets; the arguments are those of `assemble`."""
        if not self.layers:
            return assemble(llm_embed, prompt, speech_embeds, speech_lengths, targets, drafts)
        # The text before and after the speech becomes one.
        text = assemble(llm_embed, prompt, speech_embeds[:, :0], torch.zeros_like(speech_lengths), targets, drafts)
        speech_embeds = mask_tail(speech_embeds, speech_lengths)  # what is masked still reaches others if it is NaN
        remembered = tuple(layer(speech_embeds) for layer in self.layers)
        memory = Memory(list(self.layers), remembered, speech_lengths)
        return replace(text, speech_lengths=speech_lengths, memory=memory)

    def open(self) -> None:
        """Start with all gates open, for an LLM that has nothing to lose."""
        for layer in self.layers:
            nn.init.constant_(cast(Tensor, layer.gate), 1 / GATE_SPEED)


def build_interface(kind: str, llm: PreTrainedModel) -> Interface:
    """The interface of a configuration, closed: kind `prefix`, `merged_attention` or `cross_attention`.

    The last two prepare `llm` to read a memory; preparing it twice does no harm.

    Raises:
        ModelError: An unknown kind, or an LLM that it is not made for.
    """
    if kind == "prefix":
        return Interface()
    if kind not in ("merged_attention", "cross_attention"):
        raise ModelError(f"unknown interface {kind!r}", remedy="use prefix, merged_attention or cross_attention")
    config: Any = llm.config
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"{kind} is not made for an LLM of type {config.model_type}",
            remedy=f"use the prefix interface, or one of {', '.join(FAMILIES)}",
        )
    decoder: Any = llm.get_decoder()
    dim, heads = int(config.hidden_size), Heads.of(config)
    if kind == "merged_attention":
        llm.set_attn_implementation(MERGED)
        return Interface(MergedLayer(dim, heads, key_bias_of(layer, heads)) for layer in decoder.layers)
    for index, layer in enumerate(decoder.layers):
        layer.register_forward_pre_hook(partial(cross_attention, index), with_kwargs=True)
    return Interface(CrossLayer(dim, heads, float(config.attention_dropout)) for _ in decoder.layers)
