"""The denominator of maximum mutual information: every phone sequence that might have been said.

CTC asks that the right phones are likely; MMI (Bahl et al. 1986) that they are likelier than all others, each as likely
beforehand as an n-gram of phones finds it. Here all others are summed over exactly, without lattices (Povey et al.
2016), along the paths of CTC (Xiang and Ou 2019, CTC-CRF):

    log p(s | x) = log p_ctc(s | x) + log p(s) − log Σ_s' p_ctc(s' | x) p(s')

The n-gram is a dense trigram, so a step of the forward and of the backward algorithm is one product of matrices for
each phone. Probabilities are kept as such, and scaled at every frame.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

MIN_PROBABILITY = 1e-12
"""Probability that no output falls below, lest products of several become zero."""


def phone_trigrams(sentences: Iterable[Sequence[int]], num_phones: int) -> Tensor:
    """p(c | a, b) by interpolated Witten-Bell smoothing, (phones + 1,) * 3; the last number is the boundary."""
    size = num_phones + 1
    counts = torch.zeros(size, size, size, dtype=torch.float64)
    for sentence in sentences:
        padded = torch.tensor([num_phones, num_phones, *sentence, num_phones])
        counts.index_put_(
            (padded[:-2], padded[1:-1], padded[2:]), torch.ones(len(padded) - 2).double(), accumulate=True
        )
    bigrams = counts.sum(dim=0)
    return _interpolated(counts, _interpolated(bigrams, _interpolated(bigrams.sum(dim=0), torch.tensor(1.0 / size))))


def _interpolated(counts: Tensor, below: Tensor) -> Tensor:
    """Witten-Bell: counts behind a context, and the shorter context's estimate per distinct follower."""
    different = (counts > 0).sum(dim=-1, keepdim=True).clamp(min=1)
    return (counts + different * below) / (counts.sum(dim=-1, keepdim=True) + different)


def sentence_log_prob(trigrams: Tensor, sentence: Sequence[int]) -> float:
    """Log-probability of a phone sequence and its end."""
    boundary = len(trigrams) - 1
    padded = torch.tensor([boundary, boundary, *sentence, boundary])
    return float(trigrams[padded[:-2], padded[1:-1], padded[2:]].double().log().sum())


def log_denominator(log_probs: Tensor, lengths: Tensor, trigrams: Tensor) -> Tensor:
    """What all phone sequences s have together, log Σ p_ctc(s | x) p(s), of each utterance, (batch,).

    Log-probabilities are (batch, frames, phones + 1), blank last; trigrams p(c | a, b), (phones + 1,) * 3.
    """
    value: Tensor = _Denominator.apply(log_probs, lengths, trigrams)  # type: ignore[no-untyped-call]
    return value


class _Denominator(torch.autograd.Function):
    """Forward and backward algorithm; the gradient is the probability that a path has this output at this frame."""

    @staticmethod
    def forward(ctx: FunctionCtx, log_probs: Tensor, lengths: Tensor, trigrams: Tensor) -> Tensor:
        """The forward algorithm, and the backward one if a gradient will be asked for."""
        probs = log_probs.detach().float().exp().clamp(min=MIN_PROBABILITY)
        trigrams = trigrams.to(log_probs.device, torch.float32)
        within = torch.arange(probs.shape[1], device=probs.device)[:, None] < lengths.to(probs.device)
        alphas, value = _forward(probs, within, trigrams)
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            ctx.save_for_backward(_backward(probs, within, trigrams, alphas).to(log_probs.dtype))
        return value.to(log_probs.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Occupation probabilities."""
        (occupied,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient[:, None, None] * occupied, None, None


# States are (b, 2, batch, a): the last phone, whether the last output was blank (0) or that phone (1), the one before.


def _forward(probs: Tensor, within: Tensor, trigrams: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled forward probabilities behind each frame, (frames, *states), and the logarithm of their sum at the end."""
    (frames, batch), size = within.shape, len(trigrams)
    between = trigrams.transpose(0, 1)  # (b, a, c)
    alpha = probs.new_zeros(size, 2, batch, size)
    alpha[-1, 0, :, -1] = 1.0
    alphas, total = probs.new_empty(frames, *alpha.shape), probs.new_zeros(batch, dtype=torch.float64)
    for frame in range(frames):
        begun = torch.bmm(alpha.flatten(1, 2), between).unflatten(1, (2, batch))  # (b, 2, batch, c)
        begun[:, 1].diagonal(dim1=0, dim2=2).zero_()  # behind an equal phone only a blank tells two from one
        emitted = probs[:, frame, :-1].T[:, :, None]  # (c, batch, 1)
        new = torch.zeros_like(alpha)
        new[:, 0] = alpha.sum(dim=1) * probs[:, frame, -1, None]
        new[:-1, 1] = emitted * (begun.sum(dim=1).permute(2, 1, 0)[:-1] + alpha[:-1, 1])
        scale = new.sum(dim=(0, 1, 3))
        alpha = torch.where(within[frame][:, None], new / scale[:, None], alpha)
        total += scale.log().where(within[frame], 0.0)
        alphas[frame] = alpha
    last = (alpha * between[:, None, None, :, -1]).sum(dim=(0, 1, 3))
    return alphas, total + last.log()


def _backward(probs: Tensor, within: Tensor, trigrams: Tensor, alphas: Tensor) -> Tensor:
    """Probability that a path has an output at a frame, (batch, frames, phones + 1)."""
    between = trigrams.permute(1, 2, 0)  # (b, c, a)
    repeated = trigrams.diagonal(dim1=1, dim2=2).T  # (b, a): the same phone once more
    end = between[:, None, None, -1].expand(alphas.shape[1:])
    beta, occupied = end, torch.zeros_like(probs)
    for frame in reversed(range(len(within))):
        here = alphas[frame] * beta
        outputs = torch.cat([here[:-1, 1].sum(dim=2), here[:, 0].sum(dim=(0, 2))[None]]).T  # (batch, phones + 1)
        occupied[:, frame] = outputs / outputs.sum(dim=1, keepdim=True) * within[frame][:, None]
        emitted = (
            torch.nn.functional.pad(probs[:, frame, :-1].T, (0, 0, 0, 1))[:, :, None] * beta[:, 1]
        )  # (c, batch, b)
        begun = emitted.permute(2, 1, 0)  # (b, batch, c)
        before = torch.bmm(begun, between) + beta[:, 0] * probs[:, frame, -1, None]
        again = emitted - begun.diagonal(dim1=0, dim2=2).T[:, :, None] * repeated[:, None]
        beta = torch.where(within[frame][:, None], torch.stack([before, before + again], dim=1), beta)
        beta = beta / beta.amax(dim=(0, 1, 3))[:, None]
    return occupied
