"""What all training on speech shares: the batches of an epoch, and what the encoder reads of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.data.augment import spec_augment, warp_frequencies
from kikitori.data.batching import Batches, epoch_batches
from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.model.encoder import SpeechEncoder
from kikitori.train.recipe.base import SpeechTrainingRecipe
from kikitori.train.recipe.data import Augment
from kikitori.train.tasks.base import BatchPosition

EVALUATION_BATCH = 16
"""Utterances in a batch without training."""


class SpeechBatches:
    """The part of a `kikitori.train.tasks.base.Task` that reads training speech.

    Args:
        recipe: The run's recipe.
        train: Training speech.
        dev: Dev speech, or None.
    """

    def __init__(self, recipe: SpeechTrainingRecipe, train: SpeechLoader, dev: SpeechLoader | None) -> None:
        self.recipe, self.train, self.dev = recipe, train, dev

    @property
    def speech(self) -> Sequence[SpeechLoader]:
        """Training speech, and dev speech if any."""
        return [self.train] if self.dev is None else [self.train, self.dev]

    def indices(self, epoch: int) -> NDArray[np.int64]:  # noqa: ARG002
        """The utterances of an epoch."""
        return np.arange(len(self.train.utterances))

    def batches(self, epoch: int) -> Batches:
        """Buckets of similar duration, or of similar length of the text where that is what fills a batch."""
        chosen, data = self.indices(epoch), self.recipe.data
        batches = epoch_batches(
            self._costs(chosen),
            batch_seconds=data.batch_seconds,
            max_batch_size=data.max_batch_size,
            num_buckets=data.num_buckets,
            seed=self.recipe.seed,
            epoch=epoch,
            shards=self.train.utterances.table["shard"][chosen],
            shuffle_rows=data.shuffle_rows,
        )
        return batches.of(chosen)

    def size(self, indices: list[int]) -> float:
        """Seconds of a batch, padding included, or those for which its texts count if these are more."""
        return float(self._costs(np.asarray(indices)).max()) * len(indices)

    def _costs(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """What utterances count in a batch: seconds, or those that `batch_characters` makes of their texts if more."""
        table, data = self.train.utterances.table, self.recipe.data
        seconds: NDArray[np.float64] = table["duration"][indices]
        if not data.batch_characters:
            return seconds
        return np.maximum(seconds, table["characters"][indices] * (data.batch_seconds / data.batch_characters))

    def lr_factor(self, parameter: str) -> float:
        """The component's factor on the learning rate; heads learn at the full rate."""
        section = self.recipe.trainable.get(self.component(parameter))
        return 1.0 if section is None else section.lr_factor

    def unfreeze_at(self, parameter: str) -> int:
        """The component's first step; heads learn from the beginning."""
        section = self.recipe.trainable.get(self.component(parameter))
        return 0 if section is None else section.unfreeze_at

    def component(self, parameter: str) -> str:
        """`encoder`, or `heads` of what is trained with it."""
        return "encoder" if ".encoder." in parameter else "heads"

    def inputs(self, encoder: SpeechEncoder, batch: SpeechBatch, position: BatchPosition) -> tuple[Tensor, Tensor]:
        """What an encoder reads of a training batch, augmented as the recipe says, and its lengths."""
        settings = self.recipe.augment.spec_augment
        strength = min(1.0, position.progress / settings.ramp) if settings is not None and settings.ramp else 1.0
        generator = np.random.default_rng([self.recipe.seed, position.epoch, position.batch])
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
    order = np.argsort(dev.utterances.durations, kind="stable").tolist()
    batches = (dev.batch(order[start : start + EVALUATION_BATCH]) for start in range(0, len(order), EVALUATION_BATCH))
    return (batch for batch in batches if batch is not None)
