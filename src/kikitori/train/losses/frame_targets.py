"""What masked prediction predicts: clusters of frames, found by k-means (HuBERT, Hsu et al. 2021).

The first iteration clusters log-mel features, later ones the states of an encoder that has learnt already. Clusters are
those of the speech as it was recorded, one utterance at a time: neither its neighbours in a batch nor augmentation
change them, so that an encoder that is given noise or another voice learns to hear through it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.data.speech import SpeechLoader
from kikitori.errors import AudioError, ConfigError
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.features import LogMelConfig, log_mel
from kikitori.train.losses.kmeans import Rows, k_means, nearest

MELS = LogMelConfig(num_mel_bins=26)
REACH = 2
"""Frames on each side that are stacked with a log-mel frame."""

ROWS_PER_CLUSTER = 256
"""Frames that k-means learns from; more change little."""

ROWS_PER_UTTERANCE = 50
"""Of each of them, if there are enough utterances: many voices say more than many frames of one."""

FIT = 4
"""Tells the random numbers of k-means from others of the run."""


class FrameFeatures(Protocol):
    """What is clustered."""

    @property
    def seconds(self) -> float:
        """Distance of neighbouring frames."""
        ...

    def __call__(self, waveform: Waveform) -> Rows:
        """Frames of an utterance, (frames, size)."""
        ...


class LogMelStacks:
    """Log-mel features, each with two neighbours on both sides: (frames, 130) at 100 a second."""

    seconds = MELS.hop_size / MELS.sample_rate

    def __call__(self, waveform: Waveform) -> Rows:
        """Frames of an utterance, (frames, size)."""
        mels, _ = log_mel(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]), MELS)
        padded = np.pad(mels[0].numpy(), ((REACH, REACH), (0, 0)), mode="edge")
        stacked = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=0)
        return stacked.reshape(len(stacked), -1)


@dataclass(frozen=True)
class LayerStates:
    """The states of an encoder after one of its layers (1-based)."""

    encoder: SpeechEncoder
    layer: int

    @property
    def seconds(self) -> float:
        """Distance of neighbouring frames."""
        return self.encoder.seconds_per_frame

    @torch.inference_mode()
    def __call__(self, waveform: Waveform) -> Rows:
        """Frames of an utterance, (frames, size)."""
        encoded = self.encoder(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]), layers=[self.layer])
        states: Rows = encoded.intermediate[0][0].numpy()
        return states


def fit(
    features: FrameFeatures, speech: SpeechLoader, clusters: int, seed: int, log_line: Callable[[str], None]
) -> Rows:
    """Means of clusters of frames, (clusters, size).

    Raises:
        ConfigError: There are fewer frames than clusters.
    """
    generator = np.random.default_rng([seed, FIT])
    wanted = clusters * ROWS_PER_CLUSTER
    each = max(ROWS_PER_UTTERANCE, -(-wanted // len(speech.utterances)))
    chosen: list[Rows] = []
    for index in generator.permutation(len(speech.utterances)).tolist():
        try:
            rows = features(speech.read(index))
        except AudioError:
            continue  # told when its batch is read
        chosen.append(rows[generator.permutation(len(rows))[:each]])
        if sum(map(len, chosen)) >= wanted:
            break
    frames = np.concatenate(chosen) if chosen else np.zeros((0, 1), np.float32)
    if len(frames) < clusters:
        raise ConfigError(
            f"{len(frames)} frames of speech do not make {clusters} clusters",
            where="targets.clusters",
            remedy="ask for fewer, or give more speech",
        )
    means = k_means(frames, clusters, generator)
    counts = np.bincount(nearest(frames, means), minlength=clusters)
    log_line(
        f"targets: {clusters} clusters from {len(frames)} frames of {len(chosen)} utterances;"
        f" {np.count_nonzero(counts)} in use, perplexity {perplexity(counts):.1f}"
    )
    return means


def perplexity(counts: NDArray[np.int64]) -> float:
    """So many clusters, evenly used, are as hard to guess as those used so often: exp of the entropy."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass
class FrameLabels:
    """Clusters of the frames of utterances, found when they are first asked for and kept (2 bytes a frame).

    Attributes:
        features: What is clustered.
        speech: The utterances.
    """

    features: FrameFeatures
    speech: SpeechLoader
    _found: dict[int, tuple[NDArray[np.uint16], int]] = field(default_factory=dict, repr=False)

    def at_outputs(self, index: int, means: Rows, outputs: int, seconds: float, samples: int) -> NDArray[np.int64]:
        """The cluster at the middle of each output for an utterance, (outputs,).

        Args:
            index: The utterance.
            means: Of the clusters; the same at each call.
            outputs: Their number.
            seconds: Their distance.
            samples: Length of the utterance as the encoder hears it, for it may have been made faster or slower.

        Raises:
            AudioError: The file cannot be read.
        """
        if index not in self._found:
            waveform = self.speech.read(index)
            labels = nearest(self.features(waveform), means).astype(np.uint16)
            self._found[index] = labels, len(waveform)
        labels, recorded = self._found[index]
        middles = (np.arange(outputs) + 0.5) * seconds * recorded / max(samples, 1)
        places = np.minimum((middles / self.features.seconds).astype(np.int64), len(labels) - 1)
        return labels[places].astype(np.int64)
