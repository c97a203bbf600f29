"""Sampling from the decoder: every label is drawn, from a distribution that may be sharpened or cut.

Each utterance has a random stream of its own, a function of the seed and of its samples. What is drawn for it therefore
depends neither on the batch, nor on its place there, nor on what was decoded before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.model.decoder.base import Decoder
from kikitori.search.autoregressive.filters import LogitFilter
from kikitori.search.autoregressive.generate import generate
from kikitori.search.length import Limits
from kikitori.types import NBest


@dataclass(frozen=True)
class Sampling:
    """The distribution that labels are drawn from; the three apply in this order.

    Attributes:
        temperature: Divides the logits: below 1 sharpens, above 1 flattens.
        top_k: Only so many of the most probable labels are left (Fan et al. 2018), and their equals; 0 leaves all.
        top_p: Only the most probable labels that together reach this probability are left (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def sample(
    decoder: Decoder, settings: Sampling, seeds: Sequence[int], limits: Limits, filters: Sequence[LogitFilter] = ()
) -> list[NBest]:
    """Write drawn labels until EOS or each utterance's limit, see `generate`; seeds are such as `utterance_seed`."""
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(log_probs: Tensor, rows: Sequence[int]) -> Tensor:
        # On the CPU in double precision, so that every device draws alike.
        points = torch.stack([torch.rand((), generator=streams[row], dtype=torch.float64) for row in rows])
        return draw_labels(cut(log_probs, settings), points.to(log_probs.device))

    return generate(decoder, draw, limits, filters)


def utterance_seed(seed: int, waveform: NDArray[np.float32]) -> int:
    """Start of an utterance's random stream: 63 bits of a hash of the seed and the samples."""
    samples = np.ascontiguousarray(waveform, dtype="<f4").tobytes()
    digest = hashlib.sha256(f"{seed} ".encode() + samples).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def cut(log_probs: Tensor, settings: Sampling) -> Tensor:
    """Logits (rows, vocab) of the distribution to draw from: -inf where a label is left out.

    The least probable labels that have at most 1 - `top_p` together are left out; the most probable one always stays.
    """
    from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(settings.temperature))]
    if settings.top_k:
        warpers.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        warpers.append(TopPLogitsWarper(settings.top_p))
    # Double, so that a tiny temperature is not zero; relative to the best, lest they all become infinite.
    logits = log_probs.double() - log_probs.double().amax(dim=-1, keepdim=True)
    for warp in warpers:
        logits = warp(None, logits)  # type: ignore[arg-type]  # of the labels so far they read none
    return logits


def draw_labels(logits: Tensor, points: Tensor) -> Tensor:
    """The labels at which the cumulative probability of each row passes its point (rows,) in [0, 1)."""
    # In the order of the vocabulary: sorted by probability, two labels of nearly the same could change places.
    cumulative = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    labels = torch.searchsorted(cumulative, (points * cumulative[:, -1])[:, None], right=True)[:, 0]
    return labels.clamp(max=logits.shape[-1] - 1)
