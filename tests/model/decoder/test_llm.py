import random
from functools import partial

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from kikitori.errors import ModelError
from kikitori.model.decoder.base import DecoderState
from kikitori.model.decoder.cache import prefill, step
from kikitori.model.decoder.llm import (
    embed,
    embed_mixture,
    forward,
    forward_tree,
    project,
)

VOCAB, DIM = 50, 32
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # large, so that wrong masks and positions show
}


def _neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, use_parallel_residual=False, hidden_dropout=0.0))


def _qwen() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True))


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4))


@pytest.fixture(scope="module", params=[_neox, _qwen, _llama], ids=["gpt_neox", "qwen2", "llama"])
def llm(request):
    torch.manual_seed(7)
    return request.param().eval()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def reference(llm: PreTrainedModel, embeds: torch.Tensor) -> torch.Tensor:
    """Logits (n, vocab) of one row alone, by the model's own uncached forward pass."""
    with torch.no_grad():
        return llm(inputs_embeds=embeds[None], use_cache=False).logits[0]


def batch_of(rows: list[torch.Tensor], junk: float = float("nan")) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    embeds = torch.full((len(rows), int(lengths.max()), DIM), junk)
    for i, row in enumerate(rows):
        embeds[i, : len(row)] = row
    return embeds, lengths


close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def test_embed_looks_up_the_input_table(llm):
    labels = torch.tensor([[3, 4], [5, 3]])
    embeds = embed(llm, labels)
    assert embeds.shape == (2, 2, DIM)
    assert torch.equal(embeds[0, 0], llm.get_input_embeddings().weight[3])


def test_mixtures_are_weighted_sums_of_embeddings(llm):
    labels, weights = torch.randint(0, 10, (2, 3, 4)), torch.rand(2, 3, 4)
    expected = (embed(llm, labels) * weights[..., None]).sum(dim=2)
    torch.testing.assert_close(embed_mixture(llm, labels, weights), expected)
    assert embed_mixture(llm, labels[:, :0], weights[:, :0]).shape == (2, 0, expected.shape[2])


def test_forward_and_project_equal_each_row_alone_whatever_the_padding(llm):
    rows = [torch.randn(n, DIM) for n in (5, 1, 9, 9)]
    embeds, lengths = batch_of(rows)
    with torch.no_grad():
        logits = project(llm, forward(llm, embeds, lengths))
    assert logits.shape == (4, 9, VOCAB)
    for i, row in enumerate(rows):
        close(logits[i, : len(row)], reference(llm, row))


def test_forward_takes_other_positions(llm):
    embeds, lengths = torch.randn(1, 4, DIM), torch.tensor([4])
    with torch.no_grad():
        usual = forward(llm, embeds, lengths)
        close(forward(llm, embeds, lengths, positions=torch.tensor([[0, 1, 2, 3]])), usual)
        assert not torch.allclose(forward(llm, embeds, lengths, positions=torch.tensor([[0, 5, 6, 9]])), usual)


def test_a_tree_without_branches_is_a_row(llm):
    rows = [torch.randn(n, DIM) for n in (4, 6)]
    embeds, lengths = batch_of(rows, junk=0.0)
    padding = torch.arange(1, 7)
    ends = torch.stack([torch.cat([torch.full((n,), n), padding[n:]]) for n in (4, 6)])
    with torch.no_grad():
        tree, usual = forward_tree(llm, embeds, ends), forward(llm, embeds, lengths)
    for i, row in enumerate(rows):
        close(tree[i, : len(row)], usual[i, : len(row)])


def test_branches_of_a_tree_do_not_see_each_other(llm):
    #     0 - 1 - 2
    #         |   3 - 4
    #         5
    embeds, ends = torch.randn(1, 6, DIM), torch.tensor([[6, 6, 3, 5, 5, 6]])
    paths = [[0, 1, 2], [0, 1, 3, 4], [0, 1, 5]]
    with torch.no_grad():
        logits = project(llm, forward_tree(llm, embeds, ends))[0]
    for path in paths:
        close(logits[path], reference(llm, embeds[0, path]))


def test_project_keeps_leading_shape(llm):
    hidden = torch.randn(2, 3, 4, DIM)
    with torch.no_grad():
        expected = llm.get_output_embeddings()(hidden)
        close(project(llm, hidden), expected)
        close(project(llm, hidden[0, 0]), expected[0, 0])
        close(project(llm, hidden[:, 0, -1:]), expected[:, 0, -1:])
        assert project(llm, hidden[:0]).shape == (0, 3, 4, VOCAB)


def test_gradients_reach_inputs_and_weights_but_not_padding(llm):
    embeds = torch.randn(2, 4, DIM).requires_grad_()
    text = embed(llm, torch.tensor([[6], [7]]))
    hidden = forward(llm, torch.cat([text, embeds], 1), torch.tensor([5, 3]))
    project(llm, hidden[torch.tensor([0, 1]), torch.tensor([4, 2])]).square().sum().backward()
    assert (embeds.grad.abs().sum(-1) > 0).tolist() == [[True] * 4, [True, True, False, False]]
    assert llm.get_input_embeddings().weight.grad[[6, 7]].abs().sum(-1).min() > 0
    llm.zero_grad()


def test_prefill_and_steps_equal_the_full_pass(llm):
    rows = [torch.randn(n, DIM) for n in (6, 2, 4)]
    labels = torch.randint(VOCAB, (3, 5))
    with torch.no_grad():
        logits, state = prefill(llm, *batch_of(rows))
        got = [logits[:, None]]
        for columns in (labels[:, :1], labels[:, 1:4], labels[:, 4:]):
            logits, state = step(llm, columns, state)
            got.append(logits)
        got = torch.cat(got, 1)  # (3, 6, vocab)
    assert state.lengths.tolist() == [11, 7, 9]
    for i, row in enumerate(rows):
        whole = torch.cat([row, embed(llm, labels[i])]).detach()
        close(got[i], reference(llm, whole)[len(row) - 1 :])


def test_prefill_drops_columns_that_no_row_uses(llm):
    with torch.no_grad():
        _, state = prefill(llm, torch.randn(2, 7, DIM), torch.tensor([3, 5]))
    assert (state.batch_size, state.num_slots) == (2, 5)
    assert state.valid.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert {keys.shape[2] for keys, _ in state.layers} == {5}


def test_ragged_step_counts_only_real_labels(llm):
    rows = [torch.randn(n, DIM) for n in (3, 3, 2)]
    labels = torch.tensor([[4, 5, 6], [7, -1, -100], [-1, -1, 999]])
    after = torch.tensor([[8], [9], [10]])
    with torch.no_grad():
        _, state = prefill(llm, *batch_of(rows))
        logits, state = step(llm, labels, state, torch.tensor([3, 1, 0]))
        assert state.lengths.tolist() == [6, 4, 2]
        last, _ = step(llm, after, state)
    for i, real in enumerate(([4, 5, 6, 8], [7, 9], [10])):
        whole = torch.cat([rows[i], embed(llm, torch.tensor(real))]).detach()
        expected = reference(llm, whole)
        close(last[i, 0], expected[-1])
        close(logits[i, : len(real) - 1], expected[len(rows[i]) : -1])


def test_states_are_never_modified(llm):
    with torch.no_grad():
        _, state = prefill(llm, *batch_of([torch.randn(4, DIM), torch.randn(2, DIM)]))
        copies = [tensor.clone() for pair in state.layers for tensor in pair]
        before, _ = step(llm, torch.tensor([[3], [4]]), state)
        _, other = step(llm, torch.tensor([[9, 9], [8, 8]]), state.fork(3).reorder(torch.tensor([0, 5])))
        other.crop(torch.tensor([5, 1]))
        again, _ = step(llm, torch.tensor([[3], [4]]), state)
    assert torch.equal(before, again)
    assert all(map(torch.equal, copies, [tensor for pair in state.layers for tensor in pair]))
    assert (state.lengths.tolist(), state.num_slots) == ([4, 2], 4)


def test_fork_reorder_and_crop_by_hand():
    keys = torch.arange(2 * 4.0).reshape(2, 1, 4, 1)
    valid = torch.tensor([[True, True, False, True], [True, False, False, True]])
    state = DecoderState(((keys, -keys),), valid, torch.tensor([3, 2]))

    forked = state.fork(2)
    assert forked.lengths.tolist() == [3, 3, 2, 2]
    assert forked.layers[0][0][:, 0, 0, 0].tolist() == [0, 0, 4, 4]

    swapped = state.reorder(torch.tensor([1, 0]))
    assert (swapped.lengths.tolist(), swapped.num_slots) == ([2, 3], 4)
    only = state.reorder(torch.tensor([1]))  # the gap of the row that stays is closed
    assert (only.lengths.tolist(), only.valid.tolist()) == ([2], [[True, True]])
    assert (only.layers[0][0].flatten().tolist(), only.layers[0][1].flatten().tolist()) == ([4, 7], [-4, -7])

    cropped = state.crop(torch.tensor([2, 1]))
    assert (cropped.lengths.tolist(), cropped.valid.tolist()) == ([2, 1], [[True, True], [True, False]])
    assert cropped.layers[0][0][:, 0].squeeze(-1).tolist() == [[0, 1], [4, 5]]
    assert state.crop(torch.tensor([3, 2])).valid.tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_operations_equals_the_full_pass(llm, seed):
    rng = random.Random(seed)  # noqa: S311
    rows = [torch.randn(rng.randint(1, 6), DIM) for _ in range(rng.randint(1, 3))]
    with torch.no_grad():
        logits, state = prefill(llm, *batch_of(rows))
        for row, got in zip(rows, logits, strict=True):
            close(got, reference(llm, row)[-1])
        for _ in range(10):
            match rng.choice(["step", "step", "ragged", "fork", "reorder", "crop"]):
                case "fork" if len(rows) <= 4:
                    n = rng.randint(1, 3)
                    state, rows = state.fork(n), [row for row in rows for _ in range(n)]
                case "reorder":
                    order = [rng.randrange(len(rows)) for _ in range(rng.randint(1, len(rows)))]
                    state, rows = state.reorder(torch.tensor(order)), [rows[i] for i in order]
                case "crop":
                    keep = [rng.randint(max(1, len(row) - 4), len(row)) for row in rows]
                    state = state.crop(torch.tensor(keep))
                    rows = [row[:n] for row, n in zip(rows, keep, strict=True)]
                    assert state.num_slots == max(keep)
                case kind:
                    n = rng.randint(1, 3)
                    labels = torch.randint(VOCAB, (len(rows), n))
                    real = [rng.randint(0, n) if kind == "ragged" else n for _ in rows]
                    logits, state = step(llm, labels, state, torch.tensor(real) if kind == "ragged" else None)
                    for i, count in enumerate(real):
                        rows[i] = torch.cat([rows[i], embed(llm, labels[i, :count])])
                        close(logits[i, :count], reference(llm, rows[i])[len(rows[i]) - count :])
            assert state.lengths.tolist() == [len(row) for row in rows]
            assert state.valid.sum(1).tolist() == state.lengths.tolist()
        probe = torch.randint(VOCAB, (len(rows), 1))
        logits, _ = step(llm, probe, state)
        for i, row in enumerate(rows):
            close(logits[i, 0], reference(llm, torch.cat([row, embed(llm, probe[i])]))[-1])


def test_half_precision_and_inference_mode():
    llm = _qwen().eval().to(torch.bfloat16)
    with torch.inference_mode():
        logits, state = prefill(llm, torch.randn(2, 4, DIM, dtype=torch.bfloat16), torch.tensor([4, 2]))
        logits, state = step(llm, torch.tensor([[1, 2], [3, 4]]), state.fork(2).reorder(torch.tensor([0, 3])))
    assert (logits.dtype, logits.shape) == (torch.bfloat16, (2, 2, VOCAB))
    assert logits.isfinite().all()


@pytest.mark.parametrize("lengths", [[5, 2], [2, 0]])
def test_crop_refuses_what_is_not_there(lengths):
    state = DecoderState((), torch.ones(2, 4, dtype=torch.bool), torch.tensor([4, 4]))
    with pytest.raises(ModelError, match=r"cannot keep .* of row .*, which has 4"):
        state.crop(torch.tensor(lengths))


def test_wrong_shapes_and_lengths_are_refused():
    llm, embeds = _llama(), torch.zeros(2, 3, DIM)
    for lengths in ([4, 1], [0, 1], [1]):
        for call in (forward, prefill):
            with pytest.raises(ModelError, match="lengths"):
                call(llm, embeds, torch.tensor(lengths))
    state = DecoderState((), torch.ones(2, 4, dtype=torch.bool), torch.tensor([4, 4]))
    for labels in (torch.zeros(3, 1), torch.zeros(2, 0), torch.zeros(2)):
        with pytest.raises(ModelError, match="do not fit a state of 2 rows"):
            step(llm, labels.long(), state)
    with pytest.raises(ModelError, match="lengths"):
        step(llm, torch.zeros(2, 2).long(), state, torch.tensor([3, -1]))
    with pytest.raises(ModelError, match="fork"):
        state.fork(0)
    with pytest.raises(ModelError, match="to crop 2 rows"):
        state.crop(torch.tensor([1]))
