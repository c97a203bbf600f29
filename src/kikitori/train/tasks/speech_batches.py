"""What all training on speech shares: the batches of an epoch, and what the encoder reads of them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kikitori.data.augment import spec_augment, warp_frequencies
from kikitori.data.batching import epoch_batches
from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.model.encoder import SpeechEncoder
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.recipe.settings import Augment
from kikitori.train.tasks.base import Moment

HEARD_TOGETHER = 16
"""Utterances in a batch without training."""


class SpeechBatches:
    """The part of a `kikitori.train.tasks.base.Task` that reads training speech.

    Args:
        recipe: The run's recipe.
        train: Training speech.
    """

    def __init__(self, recipe: Recipe, train: SpeechLoader) -> None:
        assert recipe.data is not None  # noqa: S101  (validated by Recipe)
        self.recipe, self.data, self.train = recipe, recipe.data, train

    def indices(self, epoch: int) -> list[int]:
        """The utterances of an epoch; the first epochs may be limited to short ones."""
        longest = self.data.start_seconds if epoch < self.data.start_epochs else self.data.max_seconds
        return [i for i, utterance in enumerate(self.train.utterances) if utterance.duration <= longest]

    def batches(self, epoch: int) -> list[list[int]]:
        """Duration buckets."""
        chosen = self.indices(epoch)
        batches = epoch_batches(
            [self.train.utterances[i].duration for i in chosen],
            batch_seconds=self.data.batch_seconds,
            max_batch_size=self.data.max_batch_size,
            num_buckets=self.data.num_buckets,
            seed=self.recipe.seed,
            epoch=epoch,
        )
        return [[chosen[i] for i in batch] for batch in batches]

    def size(self, indices: list[int]) -> float:
        """Seconds of a batch, padding included."""
        return max(self.train.utterances[i].duration for i in indices) * len(indices)

    def inputs(self, encoder: SpeechEncoder, batch: SpeechBatch, moment: Moment) -> tuple[Tensor, Tensor]:
        """What an encoder reads of a training batch, augmented as the recipe says, and its lengths."""
        settings = self.recipe.augment.spec_augment
        strength = min(1.0, moment.progress / settings.ramp) if settings is not None and settings.ramp else 1.0
        generator = np.random.default_rng([self.recipe.seed, moment.epoch, moment.batch])
        return training_inputs(encoder, batch, self.recipe.augment, strength, generator)


def training_inputs(
    encoder: SpeechEncoder, batch: SpeechBatch, augment: Augment, strength: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """What an encoder reads of a training batch, and its lengths: log-mel features are warped and masked."""
    device = next(encoder.parameters()).device
    with torch.autocast(device.type, enabled=False):  # log-mel differences are finer than bfloat16
        inputs, lengths = encoder.features(batch.waveforms.to(device), batch.lengths.to(device))
    if encoder.takes_waveform:
        return inputs, lengths
    if augment.vocal_tract:
        factors = generator.uniform(1 - augment.vocal_tract, 1 + augment.vocal_tract, size=len(inputs))
        inputs = warp_frequencies(inputs, factors.tolist())
    if augment.spec_augment is not None:
        settings = augment.spec_augment
        inputs = spec_augment(
            inputs,
            lengths,
            generator,
            time_masks_per_second=settings.time_masks_per_second,
            max_time_mask=settings.max_time_mask,
            frequency_masks=settings.frequency_masks,
            max_frequency_mask=settings.max_frequency_mask,
            strength=strength,
        )
    return inputs, lengths


def dev_batches(dev: SpeechLoader) -> Iterator[SpeechBatch]:
    """Dev speech, the shortest first."""
    order = sorted(range(len(dev.utterances)), key=lambda i: dev.utterances[i].duration)
    batches = (dev.batch(order[start : start + HEARD_TOGETHER]) for start in range(0, len(order), HEARD_TOGETHER))
    return (batch for batch in batches if batch is not None)
