"""The denominator of MMI against the sum over every phone sequence, and its gradient against differences."""

from itertools import product

import pytest
import torch
from torch import Tensor

from kikitori.model.heads import ctc_loss, needed_frames
from kikitori.train.losses.mmi import log_denominator, phone_trigrams, sentence_log_prob

PHONES, FRAMES = 3, 5


def posteriors(batch: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (2.0 * torch.randn(batch, FRAMES, PHONES + 1, generator=draw, dtype=torch.float64)).log_softmax(dim=2)


@pytest.fixture(scope="module")
def trigrams() -> Tensor:
    return phone_trigrams([[0, 1, 2], [0, 0, 1], [2, 1], [1]], PHONES)


def brute_force(log_probs: Tensor, trigrams: Tensor) -> float:
    """Every sequence that fits, by the CTC loss of the toolkit."""
    frames, scores = len(log_probs), []
    for length in range(frames + 1):
        for said in product(range(PHONES), repeat=length):
            if needed_frames(said) <= frames:
                heard = -ctc_loss(log_probs[None], torch.tensor([frames]), [said]).total
                scores.append(heard + sentence_log_prob(trigrams, said))
    return float(torch.stack(scores).logsumexp(dim=0))


def test_trigrams_are_distributions(trigrams: Tensor) -> None:
    assert torch.allclose(trigrams.sum(dim=-1), torch.ones(PHONES + 1, PHONES + 1).double())
    assert (trigrams > 0).all()


def test_a_phone_often_seen_is_likelier(trigrams: Tensor) -> None:
    boundary = PHONES
    assert trigrams[boundary, boundary, 0] > trigrams[boundary, boundary, 2] > trigrams[boundary, boundary, boundary]


def test_it_is_the_sum_over_all_sequences_whatever_the_padding(trigrams: Tensor) -> None:
    log_probs, lengths = posteriors(4), torch.tensor([5, 3, 1, 4])
    found = log_denominator(log_probs, lengths, trigrams)
    expected = [brute_force(row[:length], trigrams) for row, length in zip(log_probs, lengths.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_its_gradient_is_that_of_differences(trigrams: Tensor) -> None:
    log_probs, lengths, step = posteriors(2, seed=1).requires_grad_(), torch.tensor([5, 4]), 1e-3
    log_denominator(log_probs, lengths, trigrams).sum().backward()
    assert log_probs.grad is not None
    for place in product(range(2), range(FRAMES), range(PHONES + 1)):
        moved = [log_probs.detach().clone() for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (log_denominator(each, lengths, trigrams).sum() for each in moved)
        assert float(log_probs.grad[place]) == pytest.approx(float(above - below) / (2 * step), abs=1e-3)


def test_a_frame_that_was_heard_for_certain_says_what_it_says(trigrams: Tensor) -> None:
    certain = torch.full((1, 200, PHONES + 1), -80.0)
    certain[..., PHONES] = 0.0
    certain[:, ::4, PHONES], certain[:, ::4, 1] = -80.0, 0.0
    certain.requires_grad_()
    found = log_denominator(certain, torch.tensor([200]), trigrams)
    assert found.item() == pytest.approx(sentence_log_prob(trigrams, [1] * 50), rel=1e-4)
    found.sum().backward()
    assert certain.grad is not None
    assert torch.allclose(certain.grad[0, ::4, 1], torch.ones(50), atol=1e-4)
