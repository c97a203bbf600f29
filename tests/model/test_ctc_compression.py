from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.model import ctc_compression as module
from kikitori.model.bridge import build_bridge
from kikitori.model.ctc_compression import CTCCompressBridge

MODES = [("drop", "keep"), ("keep", "average"), ("drop", "average"), ("keep", "weighted"), ("drop", "weighted")]


NAN = float("nan")


def heard(path: str, labels: str = "abc", sure: float = 0.9) -> Tensor:
    """Log-probabilities (frames, labels + 1) whose best outputs spell the path, `_` being blank."""
    probs = torch.full((len(path), len(labels) + 1), (1.0 - sure) / len(labels))
    for frame, name in enumerate(path):
        probs[frame, (labels + "_").index(name)] = sure
    return probs.log()


def random_batch(lengths: list[int], num_labels: int, levels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames and log-probabilities that are no numbers in the padding; few levels give many ties and runs."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + 2
    frames, log_probs = (
        torch.full((len(lengths), width, 3), NAN),
        torch.full((len(lengths), width, num_labels + 1), NAN),
    )
    for row, length in enumerate(lengths):
        frames[row, :length] = torch.randn(length, 3, generator=generator)
        frames[row, :length, 0] = torch.arange(length)  # says where it was
        scores = torch.randint(levels, (length, num_labels + 1), generator=generator).float()
        log_probs[row, :length] = scores.log_softmax(dim=-1)
    return frames, torch.tensor(lengths), log_probs


def compress(mode: tuple[str, str], frames: Tensor, lengths: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    return module.compress(frames, lengths, log_probs, blanks=mode[0], repeats=mode[1])


def by_definition(frames: Tensor, log_probs: Tensor, blanks: str, repeats: str) -> list[list[float]]:
    """CTC compression of one utterance, frame by frame in Python."""
    blank = log_probs.shape[1] - 1
    rows = [[float(score) for score in row] for row in log_probs]
    best = [row.index(max(row)) for row in rows]
    order = range(len(rows))
    runs = [list(run) for _, run in groupby(order, key=(lambda t: t) if repeats == "keep" else best.__getitem__)]
    kept = [run for run in runs if blanks == "keep" or best[run[0]] != blank]
    positions = []
    for run in kept or [[min(order, key=lambda t: rows[t][blank])]]:
        weights = [2.718281828459045 ** max(rows[t]) if repeats == "weighted" else 1.0 for t in run]
        weighted = [[weight * float(value) for value in frames[t]] for weight, t in zip(weights, run, strict=True)]
        positions.append([sum(values) / sum(weights) for values in zip(*weighted, strict=True)])
    return positions


def test_each_mode_on_a_path_by_hand() -> None:
    frames = torch.arange(9.0)[None, :, None]
    log_probs = heard("__aa_abb_")[None]
    log_probs[0, 2] = heard("a", sure=0.6)
    found = {mode: compress(mode, frames, torch.tensor([9]), log_probs)[0].flatten().tolist() for mode in MODES}
    heavier = (0.6 * 2 + 0.9 * 3) / 1.5
    assert found == {
        ("drop", "keep"): [2, 3, 5, 6, 7],
        ("keep", "average"): [0.5, 2.5, 4, 5, 6.5, 8],
        ("drop", "average"): [2.5, 5, 6.5],
        ("keep", "weighted"): pytest.approx([0.5, heavier, 4, 5, 6.5, 8]),
        ("drop", "weighted"): pytest.approx([heavier, 5, 6.5]),
    }


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4),
    num_labels=st.integers(1, 3),
    levels=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(MODES),
)
def test_compression_is_its_definition(
    lengths: list[int], num_labels: int, levels: int, seed: int, mode: tuple[str, str]
) -> None:
    frames, sizes, log_probs = random_batch(lengths, num_labels, levels, seed)
    compressed, counts = compress(mode, frames, sizes, log_probs)
    assert compressed.shape == (len(lengths), int(counts.max()), 3)
    for row, length in enumerate(lengths):
        expected = by_definition(frames[row, :length], log_probs[row, :length], *mode)
        count = int(counts[row])
        assert 1 <= count == len(expected) <= length
        torch.testing.assert_close(compressed[row, :count], torch.tensor(expected), atol=1e-5, rtol=1e-5)
        assert compressed[row, count:].abs().sum() == 0
        assert (compressed[row, :count, 0].diff() > 0).all()  # in order
        single = (frames[row : row + 1, :length], sizes[row : row + 1], log_probs[row : row + 1, :length])
        alone, alone_counts = compress(mode, *single)
        assert alone_counts.tolist() == [count]
        assert torch.equal(alone[0], compressed[row, :count])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_blanks_keeps_one_position(mode: tuple[str, str]) -> None:
    frames, log_probs = torch.arange(10.0).reshape(2, 5, 1), torch.stack([heard("_____"), heard("_____")])
    log_probs[0, 3] = heard("_", sure=0.7)
    log_probs[0, 4] = heard("_", sure=0.6)  # behind the end
    compressed, counts = compress(mode, frames, torch.tensor([4, 5]), log_probs)
    assert counts.tolist() == [1, 1]
    if mode[0] == "drop":
        assert compressed.flatten().tolist() == pytest.approx([3, 5])  # where blank is least probable, else the first


def test_equal_scores_are_decided_alike_in_any_batch() -> None:
    log_probs = torch.full((1, 6, 3), 1 / 3).log()  # the first label wins everywhere
    frames = torch.randn(1, 6, 2)
    for copies in (1, 5, 64):
        args = frames.repeat(copies, 1, 1), torch.full((copies,), 6), log_probs.repeat(copies, 1, 1)
        assert compress(("drop", "keep"), *args)[1].tolist() == [6] * copies
        assert compress(("drop", "average"), *args)[1].tolist() == [1] * copies


@pytest.mark.parametrize(("blanks", "repeats"), MODES)
def test_gradients_of_compression(blanks: str, repeats: str) -> None:
    torch.manual_seed(0)
    bridge = CTCCompressBridge(3, 4, blanks, repeats)
    path = "_aab_c"
    frames = torch.randn(1, 7, 3, requires_grad=True)
    log_probs = torch.cat([heard(path), heard("a")])[None].requires_grad_()
    bridge(frames, torch.tensor([6]), log_probs)[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in bridge.parameters())
    assert frames.grad is not None
    reached = frames.grad[0].abs().sum(dim=1) > 0
    assert reached.tolist() == [name != "_" or blanks == "keep" for name in path] + [False]
    if repeats == "weighted":  # a run of one frame has no weight to learn
        assert log_probs.grad is not None
        assert (log_probs.grad[0].abs().sum(dim=1) > 1e-6).tolist() == [False, True, True, False, False, False, False]
    else:
        assert log_probs.grad is None


def test_gradients_are_those_of_the_function() -> None:
    frames, lengths, log_probs = random_batch([5, 7], 2, 3, 0)
    frames, log_probs = (values.nan_to_num().double().requires_grad_() for values in (frames, log_probs))

    def weighted(frames: Tensor, log_probs: Tensor) -> Tensor:
        return compress(("drop", "weighted"), frames, lengths, log_probs)[0]

    log_probs = (log_probs.detach() + 1e-3 * torch.randn_like(log_probs)).requires_grad_()  # no ties
    assert torch.autograd.gradcheck(weighted, (frames, log_probs))


@pytest.mark.parametrize(("blanks", "repeats"), MODES)
def test_compression_in_half_precision(blanks: str, repeats: str) -> None:
    bridge = CTCCompressBridge(3, 4, blanks, repeats).bfloat16()
    embeds, counts = bridge(torch.randn(1, 6, 3).bfloat16(), torch.tensor([6]), heard("_aab_c")[None])
    assert embeds.dtype == torch.bfloat16
    assert embeds.shape == (1, int(counts), 4)


@pytest.mark.parametrize(
    ("blanks", "repeats", "word"), [("purge", "keep", "'purge'"), ("drop", "merge", "'merge'"), ("keep", "keep", "all")]
)
def test_impossible_compressions_are_refused(blanks: str, repeats: str, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        build_bridge("ctc_compress", 6, 6, 1, blanks=blanks, repeats=repeats)


def test_compressed_values_stand_where_the_frames_do():
    frames, lengths, log_probs = random_batch([7, 1, 12], 3, 2, seed=5)
    for blanks, repeats in MODES:
        bridge = CTCCompressBridge(3, 3, blanks, repeats)
        expected, _ = compress((blanks, repeats), frames, lengths, log_probs)
        assert torch.equal(bridge.pool(frames, lengths, log_probs), expected)
