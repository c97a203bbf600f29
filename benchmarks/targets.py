"""How much of what is spoken the targets of masked prediction tell: clusters of frames beside forced alignments.

python benchmarks/targets.py alignments.safetensors manifest.jsonl train [RUN LAYER ...]

For each kind of frames the share of the entropy of phones that the clusters remove (PNMI of HuBERT, Hsu et al. 2021),
and the perplexity of the clusters. `random` is the codebook of BEST-RQ (Chiu et al. 2022).
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kikitori.align.hmm.corpus import Alignments, load_alignments
from kikitori.align.hmm.mfcc import FRAMES_PER_SECOND, mfcc
from kikitori.data.augment import Waveform
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.train.build.acoustic import build_encoder
from kikitori.train.losses.frame_targets import (
    ROWS_PER_CLUSTER,
    FrameFeatures,
    LayerStates,
    LogMelStacks,
    Rows,
    k_means,
    nearest,
    perplexity,
)
from kikitori.train.recipe.components import Encoder
from kikitori.train.recipe.recipe import resolve

UTTERANCES = 150
RANDOM_SIZE = 16


class MFCCs:
    seconds = 1 / FRAMES_PER_SECOND

    def __call__(self, waveform: Waveform) -> Rows:
        return mfcc(waveform)


class RandomProjections(LogMelStacks):
    projection = np.random.default_rng(0).standard_normal((130, RANDOM_SIZE)).astype(np.float32)

    def __call__(self, waveform: Waveform) -> Rows:
        rows = super().__call__(waveform) @ self.projection
        return unit(rows)


def unit(rows: Rows) -> Rows:
    """Rows of length 1."""
    scaled: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def codebook(features: FrameFeatures, rows: Rows, clusters: int) -> Rows:
    generator = np.random.default_rng(1)
    if isinstance(features, RandomProjections):
        entries = generator.standard_normal((clusters, RANDOM_SIZE)).astype(np.float32)
        return unit(entries)
    return k_means(rows[generator.permutation(len(rows))[: clusters * ROWS_PER_CLUSTER]], clusters, generator)


def shared(phones: NDArray[np.int64], clusters: NDArray[np.int64]) -> float:
    joint = np.zeros((phones.max() + 1, clusters.max() + 1))
    np.add.at(joint, (phones, clusters), 1.0)
    joint /= joint.sum()
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.sum(axis=1), joint.sum(axis=0), joint.ravel())]
    return float((entropies[0] + entropies[1] - entropies[2]) / entropies[0])


def row(name: str, features: FrameFeatures, waveforms: list[Waveform], spoken: list[NDArray[np.int64]]) -> None:
    found = [features(waveform) for waveform in waveforms]
    # The state that is spoken at the middle of each frame.
    middles = [((np.arange(len(rows)) + 0.5) * features.seconds * FRAMES_PER_SECOND).astype(int) for rows in found]
    phones = np.concatenate([said[np.minimum(m, len(said) - 1)] for said, m in zip(spoken, middles, strict=True)])
    rows = np.concatenate(found)
    for clusters in (100, 500):
        labels = nearest(rows, codebook(features, rows, clusters))
        used = perplexity(np.bincount(labels))
        print(f"| {name} | {clusters} | {shared(phones, labels):.3f} | {used:.0f} |", flush=True)


def phones_of(alignments: Alignments) -> NDArray[np.int64]:
    phones = [label.partition("/")[0] for label in alignments.labels]
    return np.array([sorted({*phones}).index(phone) for phone in phones])


def main(file: Path, manifest: Path, split: str, *layers: str) -> None:
    alignments = load_alignments(file)
    phones = phones_of(alignments)
    known = [u for u in read_manifest(manifest, split=split).utterances if u.utt_id in alignments.states]
    chosen = [known[i] for i in np.random.default_rng(0).permutation(len(known))[:UTTERANCES]]
    waveforms = [read_utterance(utterance) for utterance in chosen]
    spoken = [phones[alignments.states[utterance.utt_id]] for utterance in chosen]
    kinds: dict[str, FrameFeatures] = {"log-mel": LogMelStacks(), "MFCC": MFCCs(), "random": RandomProjections()}
    for run, layer in zip(layers[::2], layers[1::2], strict=True):
        kinds[f"layer {layer} of {run}"] = LayerStates(
            build_encoder(resolve(Encoder(init=run, policy="frozen"))), int(layer)
        )
    print("| frames | clusters | PNMI | perplexity |\n| --- | --- | --- | --- |")
    for name, features in kinds.items():
        row(name, features, waveforms, spoken)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
