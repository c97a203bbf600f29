"""Simulated speech prompts as `bridge.show_ctc` shows them: in labels of the head, compressed if the bridge is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.model.ctc_compression import compress
from kikitori.text.units import LabelUnits
from kikitori.train.text_injection.prompts import SHOWN, PromptSimulator, SimulatedPrompt


@dataclass(frozen=True)
class Compression:
    """What a bridge does with the outputs of the head; the default leaves all of them.

    Attributes:
        blanks: As of `kikitori.model.ctc_compression.compress`.
        repeats: As there.
    """

    blanks: str = "keep"
    repeats: str = "keep"


WHOLE, AVERAGES = Compression(), Compression("drop", "average")


@dataclass(frozen=True, eq=False)
class CTCPromptSimulator:
    """Simulates what an LLM is shown of a CTC head that may write other labels, such as letters.

    Attributes:
        posteriors: Simulates the outputs of the head.
        units: Label units of the LLM.
        heard: Label units of the head.
        shown: The LLM's label for each label of the head, (labels of the head,).
        compression: What the bridge does with them.
    """

    posteriors: PromptSimulator
    units: LabelUnits
    heard: LabelUnits
    shown: NDArray[np.int64]
    compression: Compression

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The prompt of a sentence in labels of the LLM."""
        heard = labels if self.units is self.heard else self.heard.encode(self.units.decode(labels))
        prompt = self.posteriors.simulate(heard, generator)
        if self.compression != WHOLE and len(prompt):
            prompt = compressed(prompt, len(self.shown), self.compression)
        return SimulatedPrompt(self.shown[prompt.labels], prompt.weights)


def compressed(prompt: SimulatedPrompt, num_labels: int, how: Compression) -> SimulatedPrompt:
    """A prompt as a bridge compresses it, whose positions keep no more than `SHOWN` labels.

    What a position has not of its labels is the probability of blank.
    """
    size = len(prompt)
    probs = np.zeros((size, num_labels + 1), np.float32)
    np.add.at(probs, (np.arange(size)[:, None], prompt.labels), prompt.weights)
    probs[:, -1] = np.maximum(1.0 - probs.sum(axis=1), 0.0)
    rows = torch.from_numpy(probs)[None]
    lengths = torch.tensor([size])
    pooled, _ = compress(rows[..., :-1], lengths, rows.log(), blanks=how.blanks, repeats=how.repeats)
    means = pooled[0].numpy()
    labels = np.argpartition(-means, min(SHOWN, num_labels) - 1, axis=1)[:, :SHOWN]
    return SimulatedPrompt(labels.astype(np.int64), np.take_along_axis(means, labels, axis=1))
