"""What masked prediction predicts: clusters of frames, found by k-means (HuBERT, Hsu et al. 2021).

The first iteration clusters log-mel features, later ones the states of an encoder that has learnt already. Clusters are
those of the speech as it was recorded, one utterance at a time: neither its neighbours in a batch nor augmentation
change them, so that an encoder learns to be robust to noise and other voices.
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

Rows = NDArray[np.float32]
"""(rows, size)."""

ROUNDS = 30
"""Of k-means, at most."""

AT_ONCE = 16384
"""Rows whose distances are in memory at a time."""

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


def fit_clusters(
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
    fractions = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(fractions * np.log(fractions)).sum()))


@dataclass
class FrameTargets:
    """Clusters of the frames of utterances, found when they are first asked for and kept (2 bytes a frame)."""

    features: FrameFeatures
    speech: SpeechLoader
    _found: dict[int, tuple[NDArray[np.uint16], int]] = field(default_factory=dict, repr=False)

    def at_outputs(self, index: int, means: Rows, outputs: int, seconds: float, samples: int) -> NDArray[np.int64]:
        """The cluster at the middle of each output for an utterance, (outputs,), so many seconds apart.

        `samples` is the length of the utterance as the encoder reads it, perhaps made faster or slower; the means are
        the same at each call.

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


def k_means(rows: Rows, clusters: int, generator: np.random.Generator) -> Rows:
    """Means of clusters of rows, (clusters, size); equal ones only where there are fewer different rows.

    Lloyd's algorithm (1982), begun as k-means++ (Arthur and Vassilvitskii 2007).
    """
    means = _spread(rows, clusters, generator)
    for _ in range(ROUNDS):
        chosen, distances = _nearest(rows, means)
        counts = np.bincount(chosen, minlength=clusters)
        filled = np.flatnonzero(counts)
        firsts = np.cumsum(counts[filled]) - counts[filled]
        before = means.copy()
        means[filled] = np.add.reduceat(rows[np.argsort(chosen, kind="stable")], firsts) / counts[filled, None]
        # An empty cluster begins anew where the means fit worst.
        empty = np.flatnonzero(counts == 0)
        means[empty] = rows[np.argsort(-distances, kind="stable")[: len(empty)]]
        if np.array_equal(means, before):
            break
    return means


def nearest(rows: Rows, means: Rows) -> NDArray[np.int64]:
    """The cluster of each row, (rows,)."""
    return _nearest(rows, means)[0]


def _spread(rows: Rows, clusters: int, generator: np.random.Generator) -> Rows:
    """Rows to begin with, each drawn with the square of its distance from the nearest of those before."""
    places = [int(generator.integers(len(rows)))]
    lengths = np.square(rows).sum(axis=1)
    distances = np.full(len(rows), np.inf)
    while len(places) < clusters:
        last = places[-1]
        apart = lengths + lengths[last] - 2.0 * (rows @ rows[last])
        distances = np.minimum(distances, np.maximum(apart, 0.0))
        distances[last] = 0.0
        sums = np.cumsum(distances)
        place = np.searchsorted(sums, generator.random() * sums[-1], side="right")
        places.append(min(int(place), len(rows) - 1))
    return rows[places]


def _nearest(rows: Rows, means: Rows) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest mean of each row, and the square of its distance."""
    chosen, distances = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    lengths = np.square(means).sum(axis=1)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        apart = lengths - 2.0 * (part @ means.T)
        best = apart.argmin(axis=1)
        chosen[start : start + AT_ONCE] = best
        distances[start : start + AT_ONCE] = apart[np.arange(len(part)), best] + np.square(part).sum(axis=1)
    return chosen, distances
