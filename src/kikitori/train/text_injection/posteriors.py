"""Posteriors of a CTC head on augmented speech, which text injection imitates."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.data.speech import SpeechLoader
from kikitori.model.acoustic import AcousticNetwork
from kikitori.train.recipe.data import Augment
from kikitori.train.tasks.speech_batches import EVALUATION_BATCH, training_inputs


@torch.inference_mode()
def ctc_posteriors(
    model: AcousticNetwork, speech: SpeechLoader, augment: Augment, *, phones: bool = False
) -> Iterator[tuple[NDArray[np.float32], str]]:
    """Log-probabilities (frames, labels + 1) of the last CTC or phone head on augmented speech, and its transcript."""
    model.train(mode=False)
    head = model.phone_log_probs if phones else model.log_probs
    order = np.argsort(speech.utterances.durations, kind="stable").tolist()
    for start in range(0, len(order), EVALUATION_BATCH):
        batch = speech.batch(order[start : start + EVALUATION_BATCH], epoch=0)
        if batch is None:
            continue
        generator = np.random.default_rng([speech.seed, start])
        inputs, lengths = training_inputs(model.encoder, batch, augment, 1.0, generator)
        log_probs, lengths = head(model.encode_features(inputs, lengths))
        for row, length, text in zip(log_probs, lengths.tolist(), batch.texts, strict=True):
            yield row[:length].cpu().numpy(), text
