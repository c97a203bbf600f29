"""Simulated speech prompts as `bridge.show_ctc` shows them: in labels of the head, compressed if the bridge is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kikitori.text.units import LabelUnits
from kikitori.train.text_injection.prompts import SHOWN, PromptSimulator, SimulatedPrompt


@dataclass(frozen=True, eq=False)
class CTCPromptSimulator:
    """Simulates what an LLM is shown of a CTC head that may write other labels, such as letters.

    Attributes:
        posteriors: Simulates the outputs of the head.
        units: Label units of the LLM.
        heard: Label units of the head.
        shown: The LLM's label for each label of the head, (labels of the head,).
        compress: Show a run of equal outputs as one position and blanks not at all, as the bridge `ctc_compress` with
            `repeats: average` does.
    """

    posteriors: PromptSimulator
    units: LabelUnits
    heard: LabelUnits
    shown: NDArray[np.int64]
    compress: bool

    def simulate(self, labels: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        """The prompt of a sentence in labels of the LLM."""
        heard = labels if self.units is self.heard else self.heard.encode(self.units.decode(labels))
        prompt = self.posteriors.simulate(heard, generator)
        if self.compress and len(prompt):
            prompt = compressed(prompt, len(self.shown))
        return SimulatedPrompt(self.shown[prompt.labels], prompt.weights)


def compressed(prompt: SimulatedPrompt, num_labels: int) -> SimulatedPrompt:
    """A prompt of one position for each run of equal best outputs, its average; runs of blanks are left out.

    As `kikitori.model.ctc_compression.compress`: of nothing but blanks the least sure one stays. No more than `SHOWN`
    labels a position are kept.
    """
    size = len(prompt)
    probs = np.zeros((size, num_labels), np.float32)
    np.add.at(probs, (np.arange(size)[:, None], prompt.labels), prompt.weights)
    blank = 1.0 - probs.sum(axis=1)
    best = np.where(blank > probs.max(axis=1), num_labels, probs.argmax(axis=1))
    kept = best != num_labels
    if not kept.any():
        kept[blank.argmin()] = True
    opens = kept & np.concatenate([[True], (best[1:] != best[:-1]) | ~kept[:-1]])
    runs = opens.cumsum()[kept] - 1
    means = np.zeros((int(opens.sum()), num_labels), np.float32)
    np.add.at(means, runs, probs[kept])
    means /= np.bincount(runs)[:, None]
    labels = np.argpartition(-means, min(SHOWN, num_labels) - 1, axis=1)[:, :SHOWN]
    return SimulatedPrompt(labels.astype(np.int64), np.take_along_axis(means, labels, axis=1))
