"""Every interface learns to read: label sequences never seen before, from frames that look like their labels."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from kikitori.model.decoder.interface import build_interface
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.text.prompt import Prompt
from tests.tiny import DIM, INTERFACES, tiny_llm_config

BOS, EOS, FIRST, LABELS, LONGEST, FRAMES = 1, 2, 3, 16, 5, 2  # two frames per label
STEPS, BATCH, LR = 280, 16, 5e-3
PROMPT = Prompt((), (BOS,), None, EOS)
STARTS = [
    *(pytest.param(interface, False, marks=pytest.mark.slow) for interface in INTERFACES[:-1]),
    (INTERFACES[-1], False),
    *(pytest.param(interface, True, marks=pytest.mark.slow) for interface in INTERFACES[1:]),
]


def speech(labels, looks, places):
    """Frames (batch, frames, dim): the looks of the labels, where they stand, and noise."""
    frames = torch.zeros(len(labels), FRAMES * LONGEST, DIM)
    for row, sequence in enumerate(labels):
        count = FRAMES * len(sequence)
        frames[row, :count] = looks[torch.tensor(sequence).repeat_interleave(FRAMES)] + places[:count]
    return frames + 0.1 * torch.randn(frames.shape)


@pytest.mark.parametrize(("interface", "opened"), STARTS)
def test_each_interface_learns_to_read(interface, opened):
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(tiny_llm_config("llama", LABELS))
    reader = build_interface(interface, llm)
    if opened:
        reader.open()
    looks, places = torch.randn(LABELS, DIM), torch.randn(FRAMES * LONGEST, DIM)
    parts = torch.nn.ModuleList([llm, reader])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    right = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / 30) * (1 - step / STEPS)
        labels = [torch.randint(FIRST, LABELS, (size,)).tolist() for size in torch.randint(2, LONGEST + 1, (BATCH,))]
        lengths = torch.tensor([FRAMES * len(row) for row in labels])
        rows = reader(lambda ids: embed(llm, ids), PROMPT, speech(labels, looks, places), lengths, labels)
        hidden = forward(llm, rows.embeds, rows.lengths, rows.memory)
        logits = project(llm, hidden[rows.target_positions])
        optimizer.zero_grad()
        cross_entropy(logits, rows.next_labels).backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        right.append((logits.argmax(-1) == rows.next_labels).float().mean().item())
    assert sum(right[:20]) / 20 < 0.3
    assert sum(right[-20:]) / 20 > 0.95, right[::50]
