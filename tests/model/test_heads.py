from itertools import groupby, product
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.model.heads import CTCHead, ctc_loss, needed_frames


def random_log_probs(batch: int, frames: int, outputs: int, seed: int = 0) -> torch.Tensor:
    logits = 2 * torch.randn(batch, frames, outputs, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1)


def collapsed(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label != blank)


def enumerated_loss(log_probs: torch.Tensor, labels: tuple[int, ...]) -> float:
    frames, outputs = log_probs.shape
    scores = [
        sum(log_probs[t, output].double() for t, output in enumerate(path))
        for path in product(range(outputs), repeat=frames)
        if collapsed(path, outputs - 1) == labels
    ]
    return -float(torch.stack(scores).logsumexp(0)) if scores else inf


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_loss_is_the_sum_over_all_paths(frames, num_labels):
    log_probs = random_log_probs(1, frames, num_labels + 1, seed=frames * num_labels)
    for length in range(frames + 1):
        for labels in product(range(num_labels), repeat=length):
            expected = enumerated_loss(log_probs[0], labels)
            loss = ctc_loss(log_probs, torch.tensor([frames]), [labels])
            assert (loss.infeasible == (0,)) == (expected == inf)
            assert float(loss.total) == pytest.approx(0.0 if expected == inf else expected, abs=1e-4)


def test_a_batch_is_the_sum_of_its_rows_and_padding_is_not_read():
    log_probs = random_log_probs(3, 9, 5)
    lengths, labels = torch.tensor([9, 4, 6]), [[0, 1, 1], [3], []]
    rows = [
        float(ctc_loss(log_probs[i : i + 1, : lengths[i]], lengths[i : i + 1], [labels[i]]).total) for i in range(3)
    ]
    spoilt = log_probs.clone()
    spoilt[1, 4:], spoilt[2, 6:] = -50.0, -50.0
    loss = ctc_loss(spoilt, lengths, labels)
    assert float(loss.total) == pytest.approx(sum(rows), rel=1e-5)
    assert (loss.num_labels, loss.infeasible) == (4, ())


def test_loss_is_torchs():
    log_probs = random_log_probs(2, 12, 6)
    expected = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([[1, 2, 2, 4], [0, 0, 0, 0]]),
        torch.tensor([12, 10]),
        torch.tensor([4, 1]),
        blank=5,
        reduction="sum",
    )
    loss = ctc_loss(log_probs, torch.tensor([12, 10]), [[1, 2, 2, 4], [0]])
    torch.testing.assert_close(loss.total, expected)


def test_infeasible_rows_are_named_and_add_nothing():
    log_probs = random_log_probs(4, 3, 4).requires_grad_()
    lengths, labels = torch.tensor([3, 2, 3, 0]), [[0, 1], [0, 0], [0, 1, 2, 0], [1]]
    loss = ctc_loss(log_probs, lengths, labels)
    assert (loss.infeasible, loss.num_labels) == ((1, 2, 3), 2)
    torch.testing.assert_close(loss.total, ctc_loss(log_probs[:1], lengths[:1], labels[:1]).total)
    (gradient,) = torch.autograd.grad(loss.total, log_probs)
    assert torch.isfinite(gradient).all()
    assert gradient[0].any()
    assert not gradient[1:].any()


def test_nothing_feasible_still_has_a_gradient_of_zero():
    log_probs = random_log_probs(2, 1, 4).requires_grad_()
    loss = ctc_loss(log_probs, torch.tensor([1, 1]), [[0, 1], [2, 2]])
    assert (loss.total.item(), loss.num_labels, loss.infeasible) == (0.0, 0, (0, 1))
    loss.total.backward()
    assert not log_probs.grad.any()


def test_no_labels_are_all_blanks():
    log_probs = random_log_probs(2, 4, 3)
    loss = ctc_loss(log_probs, torch.tensor([4, 2]), [[], []])
    assert float(loss.total) == pytest.approx(-float(log_probs[0, :, 2].sum() + log_probs[1, :2, 2].sum()), rel=1e-5)
    assert (loss.num_labels, loss.infeasible) == (0, ())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=7), st.integers(0, 8), st.integers(0, 99))
def test_gradient_is_finite_and_sums_to_zero_over_outputs(labels, frames, seed):
    logits = (20 * torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(seed))).requires_grad_()
    loss = ctc_loss(logits.log_softmax(-1), torch.tensor([frames]), [labels])
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert torch.isfinite(gradient).all()
    assert float(gradient.sum(-1).abs().max()) < 1e-4
    assert not gradient[:, frames:].any()


@pytest.mark.parametrize(
    ("labels", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1], 5), ([1, 2, 2, 1], 5)]
)
def test_needed_frames(labels, frames):
    assert needed_frames(labels) == needed_frames(tuple(labels)) == frames


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=3))
def test_needed_frames_is_the_shortest_path(labels):
    lengths = (n for n in range(7) if any(collapsed(path, 2) == tuple(labels) for path in product(range(3), repeat=n)))
    assert needed_frames(labels) == next(lengths)


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_head(upsample):
    head = CTCHead(8, 5, upsample)
    frames = torch.randn(2, 4, 8)
    log_probs, lengths = head(frames, torch.tensor([4, 2]))
    assert log_probs.shape == (2, 4 * upsample, 6)
    assert lengths.tolist() == [4 * upsample, 2 * upsample]
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 4 * upsample))
    # Outputs of frame t stand at t * upsample and after, in order.
    alone, _ = head(frames[:, 2:3], torch.tensor([1, 1]))
    torch.testing.assert_close(log_probs[:, 2 * upsample : 3 * upsample], alone)


def test_head_gives_float32_from_half_precision():
    head = CTCHead(4, 3).to(torch.bfloat16)
    assert head(torch.randn(1, 2, 4, dtype=torch.bfloat16), torch.tensor([2]))[0].dtype == torch.float32


def test_head_of_no_frames():
    assert CTCHead(4, 3, 2)(torch.zeros(1, 0, 4), torch.tensor([0]))[0].shape == (1, 0, 4)
