"""Simulated CTC posteriors of sentences that nobody spoke, for text-only training of an LLM.

`RandomErrors` makes errors up. A `PosteriorSampler` puts together pieces of the posteriors of a real CTC head on real
speech, with its doubts, confusions, omissions and pauses: concatenative synthesis in the domain of posteriors.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kikitori.align.ctc import ctc_align

SHOWN = 16
"""The most probable labels of a frame that a sampler keeps."""
TRIES = 8
"""Pieces that are looked at to find one that followed the same label when it was spoken."""
SPECIAL = 3
"""Label units begin with so many that are no part of a text."""
MIN_PROBABILITY = 1e-5
"""Of what a prompt does not show."""
FIRST = -1
"""Stands for the label before the first one."""


@dataclass(frozen=True, eq=False)
class SimulatedPrompt:
    """The simulated posteriors of a sentence.

    Attributes:
        labels: What stands at each position, (positions, shown).
        weights: Its weights, (positions, shown), 0 for none.
        draft: What a first search makes of it, in label units.
    """

    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    draft: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.labels)

    @classmethod
    def of(cls, items: Sequence[int | None]) -> Self:
        """At most one label at a position, None for blank."""
        labels = np.array([[item or 0] for item in items], dtype=np.int64).reshape(-1, 1)
        weights = np.array([[float(item is not None)] for item in items], dtype=np.float32).reshape(-1, 1)
        return cls(labels, weights)


NO_PROMPT = SimulatedPrompt.of([])


def stack(prompts: Sequence[SimulatedPrompt]) -> SimulatedPrompt:
    """Prompts as one, (prompts, positions, shown): what is not there weighs nothing."""
    shape = (len(prompts), max(map(len, prompts)), max(prompt.labels.shape[1] for prompt in prompts))
    labels, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for row, prompt in enumerate(prompts):
        positions, shown = prompt.labels.shape
        labels[row, :positions, :shown] = prompt.labels
        weights[row, :positions, :shown] = prompt.weights
    return SimulatedPrompt(labels, weights)


class PromptSimulator(Protocol):
    """What simulates the posteriors of a sentence, as if it had been spoken."""

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The prompt of a sentence; `NO_PROMPT` if its pronunciation is not known."""
        ...


@dataclass(frozen=True)
class RandomErrors:
    """Labels among blanks, with random errors.

    Attributes:
        max_error_rate: Highest fraction of errors: labels wrong, missing or inserted; drawn per sentence from 0 up.
        frames_per_label: Average positions per label.
    """

    wrong: range
    max_error_rate: float = 0.4
    frames_per_label: float = 2.5

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The prompt of a sentence, with errors of its own each time."""
        error_rate = generator.uniform(0.0, self.max_error_rate)
        shown: list[int | None] = []
        for label in labels:
            draw = generator.random()
            if draw < error_rate / 4:
                found: list[int] = []  # a deletion
            elif draw < error_rate / 2:
                found = [label, int(generator.integers(self.wrong.start, self.wrong.stop))]  # an insertion
            elif draw < error_rate:
                found = [int(generator.integers(self.wrong.start, self.wrong.stop))]  # a substitution
            else:
                found = [label]
            for item in found:
                positions = 1 + int(generator.poisson(max(self.frames_per_label - 1.0, 0.0)))
                repeats = 1 + int(positions > 1 and generator.random() < 0.25)
                before = int(generator.integers(0, positions - repeats + 1))
                shown += [None] * before + [item] * repeats + [None] * (positions - repeats - before)
        return SimulatedPrompt.of(shown)


@dataclass(frozen=True, eq=False)
class PosteriorSampler:
    """Pieces of CTC posteriors, one for each label of transcribed speech, in the order in which they were spoken.

    Attributes:
        labels: The most probable labels of each frame, (frames, shown).
        weights: Their probabilities, (frames, shown).
        ends: Frame after the last one of each piece; the next piece begins there, (pieces,).
        spoken: Label of each piece, (pieces,).
        before: Label before it in its utterance, or `FIRST`, (pieces,).
        by_label: Pieces, sorted by their label, (pieces,).
        offsets: Where the pieces of each label begin in `by_label`, (label units + 1,).
    """

    labels: NDArray[np.int32]
    weights: NDArray[np.float16]
    ends: NDArray[np.int64]
    spoken: NDArray[np.int64]
    before: NDArray[np.int64]
    by_label: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The posteriors of a sentence; a label that the speech had not gets a blank and a certain frame."""
        shown: list[NDArray[np.int32]] = []
        weights: list[NDArray[np.float16]] = []
        piece, before = len(self.spoken), FIRST
        for label in labels:
            piece = self._piece(label, before, piece + 1, generator)
            before = label
            if piece < 0:
                plain = np.zeros((2, self.labels.shape[1]), np.float16)  # a blank and the label
                plain[1, 0] = 1.0
                shown.append(np.full(plain.shape, label, np.int32))
                weights.append(plain)
            else:
                start = self.ends[piece - 1] if piece else 0
                shown.append(self.labels[start : self.ends[piece]])
                weights.append(self.weights[start : self.ends[piece]])
        if not shown:
            return NO_PROMPT
        return SimulatedPrompt(np.concatenate(shown).astype(np.int64), np.concatenate(weights).astype(np.float32))

    def _piece(self, label: int, before: int, following: int, generator: np.random.Generator) -> int:
        """A piece of a label; half the time the one that followed, if it fits; -1 if there is none."""
        if following < len(self.spoken) and self.spoken[following] == label and generator.random() < 0.5:
            return following
        start, end = self.offsets[label], self.offsets[label + 1]
        if start == end:
            return -1
        found = self.by_label[generator.integers(start, end, size=TRIES)]
        fitting = found[self.before[found] == before]
        return int(fitting[0] if len(fitting) else found[0])


@dataclass(frozen=True, eq=False)
class PhonePromptSimulator:
    """Simulates the prompts of a phone head.

    Attributes:
        phones: The phones of a sentence in label units; None if it has a word whose pronunciation is not known.
        upsample: Outputs of the head per frame of the encoder.
        offset: Row of the LLM's embeddings where those of the phones begin.
        draft: What makes a draft of log-probabilities (outputs, phones + 1), in label units; None, nothing does.
    """

    posteriors: PromptSimulator
    phones: Callable[[Sequence[int]], list[int] | None]
    num_phones: int
    upsample: int
    offset: int
    draft: Callable[[NDArray[np.float32]], list[int]] | None = None

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The prompt of a sentence; the outputs of an encoder frame share a position, each with its own labels."""
        phones = self.phones(labels)
        if not phones:
            return NO_PROMPT
        each = self.posteriors.simulate(phones, generator)
        rows = -(-len(each) // self.upsample)
        missing = ((0, rows * self.upsample - len(each)), (0, 0))
        slots = np.arange(rows * self.upsample)[:, None] % self.upsample
        shown = np.pad(each.labels, missing) + slots * self.num_phones + self.offset
        draft = () if self.draft is None else tuple(self.draft(implied_log_probs(each, self.num_phones)))
        return SimulatedPrompt(shown.reshape(rows, -1), np.pad(each.weights, missing).reshape(rows, -1), draft)


def implied_log_probs(prompt: SimulatedPrompt, num_labels: int) -> NDArray[np.float32]:
    """Log-probabilities (positions, labels + 1) of which a prompt shows the most probable labels; blank last."""
    found = np.zeros((len(prompt), num_labels + 1), np.float32)
    np.add.at(found, (np.arange(len(prompt))[:, None], prompt.labels), prompt.weights)
    found[:, -1] = 1.0 - found[:, :-1].sum(axis=1)
    logs: NDArray[np.float32] = np.log(found.clip(MIN_PROBABILITY))
    return logs


def posterior_sampler(
    utterances: Iterable[tuple[NDArray[np.float32], Sequence[int]]], num_labels: int
) -> PosteriorSampler:
    """Cuts the posteriors of transcribed speech into pieces, at the last frame of each label of the best path.

    Utterances are CTC log-probabilities (frames, labels + 1), blank last, and labels; those whose labels do not fit
    into their frames are left out.
    """
    shown = min(SHOWN, num_labels)
    frames_labels, frames_weights = [np.zeros((0, shown), np.int32)], [np.zeros((0, shown), np.float16)]
    ends: list[int] = []
    spoken: list[int] = []
    before: list[int] = []
    total = 0
    for log_probs, labels in utterances:
        spans = ctc_align(log_probs, labels)
        if not spans:
            continue
        not_blank = log_probs[:, :-1]
        best = np.argpartition(-not_blank, shown - 1, axis=1)[:, :shown]
        frames_labels.append(best.astype(np.int32))
        frames_weights.append(np.exp(np.take_along_axis(not_blank, best, axis=1)).astype(np.float16))
        cuts = [end for _, end in spans[:-1]] + [len(log_probs)]
        ends += [total + cut for cut in cuts]
        spoken += labels
        before += [FIRST, *labels[:-1]]
        total += len(log_probs)
    pieces = np.array(spoken, dtype=np.int64)
    counts = np.bincount(pieces, minlength=num_labels)
    return PosteriorSampler(
        labels=np.concatenate(frames_labels),
        weights=np.concatenate(frames_weights),
        ends=np.array(ends, dtype=np.int64),
        spoken=pieces,
        before=np.array(before, dtype=np.int64),
        by_label=np.argsort(pieces, kind="stable"),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )
