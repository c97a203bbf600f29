import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from kikitori.errors import ModelError
from kikitori.model.decoder.assemble import assemble
from kikitori.text.prompt import DRAFT_ROOM, Prompt

DIM = 3


def table(labels: torch.Tensor) -> torch.Tensor:
    """Label l is (l, l, l), so that a layout can be read off one coordinate."""
    return labels[..., None].expand(*labels.shape, DIM).float()


def speech_of(lengths: list[int]) -> torch.Tensor:
    """Position t of row i is -(10 i + t + 1); padding is not a number."""
    speech = torch.full((len(lengths), max(lengths), DIM), float("nan"))
    for i, n in enumerate(lengths):
        speech[i, :n] = -(10 * i + 1 + torch.arange(n)[:, None].float())
    return speech


def test_training_layout_by_hand():
    prompt = Prompt(before=(5, 6), after=(7,), bos=1, eos=2)
    got = assemble(table, prompt, speech_of([2, 1]), torch.tensor([2, 1]), [[20, 21], []])
    assert got.embeds[:, :, 0].tolist() == [[5, 6, -1, -2, 7, 1, 20, 21], [5, 6, -11, 7, 1, 0, 0, 0]]
    assert got.lengths.tolist() == [8, 5]
    assert got.speech_lengths.tolist() == [2, 1]
    rows, columns = got.target_positions
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 0, 1], [5, 6, 7, 4])
    assert got.next_labels.tolist() == [20, 21, 2, 2]
    assert {t.dtype for t in (rows, columns, got.next_labels, got.lengths)} == {torch.int64}


def test_decoding_prefix_by_hand():
    prompt = Prompt(before=(5, 6), after=(7,), bos=1, eos=2)
    got = assemble(table, prompt, speech_of([1, 3]), torch.tensor([1, 3]), None)
    assert got.embeds[:, :, 0].tolist() == [[5, 6, -1, 7, 1, 0, 0], [5, 6, -11, -12, -13, 7, 1]]
    assert got.lengths.tolist() == [5, 7]
    assert got.next_labels.tolist() == []
    assert got.embeds[got.target_positions].shape == (0, DIM)


def test_a_draft_stands_between_the_speech_and_the_text_after_it():
    prompt = Prompt(before=(5,), after=(7,), bos=1, eos=2, draft=True)
    speech, lengths = speech_of([2, 1]), torch.tensor([2, 1])
    got = assemble(table, prompt, speech, lengths, [[20], [21]], [[], [30, 31]])
    draft = [30, 31, *[2] * (DRAFT_ROOM - 2)]
    assert [row[:length].tolist() for row, length in zip(got.embeds[:, :, 0], got.lengths, strict=True)] == [
        [5, -1, -2, 7, 1, 20],
        [5, -11, *draft, 7, 1, 21],
    ]
    assert got.next_labels.tolist() == [20, 2, 21, 2]
    assert got.target_positions[1].tolist() == [4, 5, 3 + DRAFT_ROOM, 4 + DRAFT_ROOM]
    longer = assemble(table, prompt, speech, lengths, None, [[30] * DRAFT_ROOM, [30] * (DRAFT_ROOM + 1)])
    assert longer.lengths.tolist() == [5 + DRAFT_ROOM, 4 + 2 * DRAFT_ROOM]
    close = replace(prompt, draft_room=1)
    assert assemble(table, close, speech, lengths, None, [[], [30, 31]]).lengths.tolist() == [5, 6]
    for drafts in (None, [[3]]):
        with pytest.raises(ModelError, match="the prompt takes 2 drafts"):
            assemble(table, prompt, speech, lengths, None, drafts)


def test_without_any_text_the_last_speech_position_predicts_the_first_label():
    prompt = Prompt(before=(), after=(), bos=None, eos=2)
    assert assemble(table, prompt, speech_of([3]), torch.tensor([3]), None).embeds[0, :, 0].tolist() == [-1, -2, -3]
    got = assemble(table, prompt, speech_of([3]), torch.tensor([3]), [[9]])
    assert got.target_positions[1].tolist() == [2, 3]
    assert got.next_labels.tolist() == [9, 2]


@pytest.mark.parametrize("seed", range(20))
def test_random_batches_follow_the_definition(seed):
    rng = random.Random(seed)  # noqa: S311

    def some(low, high):
        return tuple(rng.randint(1, 40) for _ in range(rng.randint(low, high)))

    prompt = Prompt(some(0, 3), some(0, 3), rng.choice([None, 1]), 2)
    lengths = [rng.randint(1, 6) for _ in range(rng.randint(1, 5))]
    targets = [some(0, 5) for _ in lengths]
    speech = speech_of(lengths)
    prefix = assemble(table, prompt, speech, torch.tensor(lengths), None)
    got = assemble(table, prompt, speech, torch.tensor(lengths), targets)
    expected_labels = []
    for i, (n, target) in enumerate(zip(lengths, targets, strict=True)):
        head = [*prompt.before, *(-(10 * i + 1 + t) for t in range(n)), *prompt.after]
        head += [] if prompt.bos is None else [prompt.bos]
        for batch, row in ((prefix, head), (got, [*head, *target])):
            assert batch.lengths[i] == len(row)
            assert batch.embeds[i, : len(row), 0].tolist() == row
            assert not batch.embeds[i, len(row) :].any()
        columns = got.target_positions[1][got.target_positions[0] == i].tolist()
        assert columns == list(range(len(head) - 1, len(head) + len(target)))
        expected_labels += [*target, 2]

        alone = assemble(table, prompt, speech[i : i + 1], torch.tensor([n]), [target])
        assert torch.equal(alone.embeds[0], got.embeds[i, : len(head) + len(target)])
    assert got.next_labels.tolist() == expected_labels


def test_gradients_flow_to_speech_and_embeddings_and_types_follow_the_llm():
    embedding = nn.Embedding(30, DIM, dtype=torch.float64)
    speech = torch.randn(2, 3, DIM, requires_grad=True)
    prompt = Prompt((5,), (), 1, 2)
    got = assemble(embedding, prompt, speech, torch.tensor([3, 1]), [[20], [21, 20]])
    assert got.embeds.dtype == torch.float64
    got.embeds.sum().backward()
    assert speech.grad.tolist() == [[[1.0] * DIM] * 3, [[1.0] * DIM, [0.0] * DIM, [0.0] * DIM]]
    counts = torch.zeros(30)
    counts[[5, 1, 20, 21]] = torch.tensor([2.0, 2.0, 2.0, 1.0])
    assert embedding.weight.grad[:, 0].tolist() == counts.tolist()


def test_what_does_not_belong_together_is_refused():
    prompt, speech = Prompt((), (), None, 2), torch.zeros(2, 3, DIM)
    with pytest.raises(ModelError, match="2 speech prompts, 2 lengths and 1 targets"):
        assemble(table, prompt, speech, torch.tensor([1, 1]), [[3]])
    with pytest.raises(ModelError, match="2 speech prompts, 1 lengths and no targets"):
        assemble(table, prompt, speech, torch.tensor([1]), None)
    with pytest.raises(ModelError, match=r"\[4, 1\] do not fit 3 positions"):
        assemble(table, prompt, speech, torch.tensor([4, 1]), None)
    for targets in (None, [[3], [4]]):
        with pytest.raises(ModelError, match="neither speech nor text before its first label"):
            assemble(table, prompt, speech, torch.tensor([1, 0]), targets)
    got = assemble(table, Prompt((), (), 1, 2), speech, torch.tensor([1, 0]), [[3], [4]])
    assert got.lengths.tolist() == [3, 2]
