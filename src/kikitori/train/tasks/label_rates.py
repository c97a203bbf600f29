"""What the transcripts of training speech ask for: labels a second, and frames for CTC.

Every text has to be encoded for it, which takes a minute for a million, so that it is asked when it is needed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.data.rows import Rows
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.heads import needed_frames
from kikitori.text.units import TokenizerUnits

CROWDED = 4.0
"""Labels a second of the median utterance that no one exceeds in speaking."""


@dataclass(frozen=True)
class LabelRates:
    """What is known of some utterances.

    Attributes:
        rates: Labels a second, (n,).
        misfits: Which have more labels than CTC has frames, as far as their durations are true, (n,).
    """

    rates: NDArray[np.float64]
    misfits: NDArray[np.bool_]

    @property
    def crowded(self) -> NDArray[np.bool_]:
        """Which have so many labels in a second that their texts or durations must be wrong, (n,)."""
        said = self.rates[self.rates > 0.0]
        return self.rates > CROWDED * (np.median(said) if said.size else np.inf)

    def highest(self, durations: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
        """The highest rate and the longest duration of utterances that can be right; of all if none can.

        Args:
            durations: Seconds, (n,).
            wrong: Which are known to be wrong otherwise, (n,).
        """
        usable = ~(self.misfits | self.crowded | wrong)
        if not usable.any():
            usable[:] = True
        return float(self.rates[usable].max()), float(durations[usable].max())


def label_rates(
    rows: Rows, units: TokenizerUnits, ctc_units: TokenizerUnits, encoder: SpeechEncoder | None
) -> LabelRates:
    """Encodes the texts of some utterances; without an encoder no CTC loss reads them."""
    counts = np.array([len(units.encode(row.text or "")) for row in rows], np.float64)
    rates = counts / np.maximum(rows.durations, 0.01)
    misfits = too_long_for_ctc(rows, ctc_units, encoder) if encoder is not None else np.zeros(len(rows), bool)
    return LabelRates(rates, misfits)


def too_long_for_ctc(rows: Rows, units: TokenizerUnits, encoder: SpeechEncoder) -> NDArray[np.bool_]:
    """Which utterances have labels that do not fit into their frames, as far as their durations are true, (n,)."""
    frames = encoder.output_lengths(torch.from_numpy(np.rint(rows.durations * SAMPLE_RATE).astype(np.int64))).numpy()
    needed = np.array([needed_frames(units.encode(row.text or "")) for row in rows])
    found: NDArray[np.bool_] = needed > frames
    return found
