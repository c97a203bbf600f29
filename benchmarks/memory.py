"""What training takes of memory, estimated for LLMs that do not fit here.

OMP_NUM_THREADS=1 python benchmarks/memory.py

Qwen2's shapes without weights (torch's `meta` device), a batch of 16 rows of 256 positions, of which 48 are labels,
layers computed again in the backward pass (`run.gradient_checkpointing`), float32; GB of one GPU.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from kikitori.train.memory.estimate import Estimate, LiveTensors, estimate, fits, share
from kikitori.train.memory.recompute import checkpoint_activations
from kikitori.train.recipe.optim import Run

SHAPES = {  # hidden, feed-forward, layers, heads, heads of keys, vocabulary, tied
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}
ROWS, POSITIONS, LABELS, RANK = 16, 256, 48, 16
GPU = 80.0


class Adapted(nn.Module):
    """A linear layer with a low-rank update, as PEFT makes them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, base.out_features, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(inputs) + self.up(self.down(inputs))
        return result


def table() -> None:
    print("GB of one GPU | alone or DDP | fsdp over 2 | 8 | 64")
    for name, shape in SHAPES.items():
        for lora in (False, True):
            llm, activations = on_meta(shape, lora=lora)
            run = Run(epochs=1)
            found = [estimate(llm, run, activations), *(share(llm, run, activations, n) for n in (2, 8, 64))]
            fitting = [
                line.split(", ")[1].split(":")[0] for line in fits(llm, run, activations, GPU) if "not" not in line
            ]
            print(f"{name} {'LoRA' if lora else 'full'} | " + " | ".join(f"{each.total / 2**30:.1f}" for each in found))
            print(f"    {gigabytes(found[0])}; a GPU of {GPU:g} GB takes: {', '.join(fitting)}")


def on_meta(shape: tuple[Any, ...], *, lora: bool) -> tuple[nn.Module, int]:
    """An LLM without weights, and the bytes that a forward pass keeps."""
    hidden, inner, layers, heads, keys, vocabulary, tied = shape
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if lora:
            llm.requires_grad_(False)
            for layer in llm.model.layers:
                for name in ("q_proj", "v_proj"):
                    setattr(layer.self_attn, name, Adapted(getattr(layer.self_attn, name)))
        checkpoint_activations(llm)
        llm.train()
        embeds = torch.empty(ROWS, POSITIONS, hidden, requires_grad=True)
        with LiveTensors() as tensors:
            states = llm.model(None, {"full_attention": None}, inputs_embeds=embeds, use_cache=False).last_hidden_state
            logits = llm.lm_head(states[:, -LABELS:]).flatten(0, 1)
            nn.functional.cross_entropy(logits, torch.empty(ROWS * LABELS, dtype=torch.int64))
    return llm, tensors.peak


def gigabytes(found: Estimate) -> str:
    parts = {"weights": found.weights, "gradients": found.gradients, "AdamW": found.optimizer, "copy": found.copies}
    return ", ".join(f"{n} {size / 2**30:.2f}" for n, size in {**parts, "activations": found.activations}.items())


if __name__ == "__main__":
    table()
