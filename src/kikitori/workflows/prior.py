"""`kikitori prior`: a label prior of a recogniser or of a language model's units, from speech or from transcripts."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from kikitori.data.speech import read_utterance
from kikitori.recognizer import Recognizer
from kikitori.scorers.prior import count_prior, softmax_prior
from kikitori.text.subword_sampling import subword_sampler
from kikitori.text.units import TokenizerUnits
from kikitori.types import Utterance

Progress = Callable[[int], None]
SAMPLES = 4
"""Segmentations drawn of each transcript."""


def speech_prior(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    phones: bool = False,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
) -> Tensor:
    """The mean of what the recogniser's CTC head, or phone head, gives over some speech, (labels,) log-probabilities.

    Raises:
        AudioError: An utterance cannot be read.
        DataError: There is no speech.
        ModelError: The recogniser has no such head.
    """

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        order = sorted(utterances, key=lambda utterance: utterance.duration)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            waveforms = [read_utterance(utterance) for utterance in batch]
            yield recognizer.phone_log_probs(waveforms) if phones else recognizer.ctc_log_probs(waveforms)
            progress(len(batch))

    return softmax_prior(outputs())


def text_prior(units: TokenizerUnits, utterances: Sequence[Utterance]) -> Tensor:
    """Smoothed relative counts of the labels of some transcripts, (labels,) log-probabilities.

    Raises:
        DataError: There is no transcript.
    """
    return count_prior((units.encode(row.text) for row in utterances if row.text), units.size)


def sampled_text_prior(
    units: TokenizerUnits, utterances: Sequence[Utterance], *, samples: int = SAMPLES, seed: int = 0
) -> Tensor:
    """Relative frequencies of labels over several segmentations of each transcript, drawn at random (subword sampling).

    Raises:
        ConfigError: The units cannot be sampled.
        DataError: There is no transcript.
    """
    sampler, generator = subword_sampler(units), np.random.default_rng(seed)
    texts = (row.text for row in utterances if row.text)
    drawn = (sampler.encode(text, generator) for text in texts for _ in range(samples))
    return count_prior(drawn, units.size)
