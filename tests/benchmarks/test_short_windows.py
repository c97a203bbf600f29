"""What the comparison of windows measures."""

from dataclasses import dataclass

import numpy as np

from benchmarks import short_windows
from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import Hypothesis


@dataclass(frozen=True)
class Said:
    """A recogniser that writes these texts."""

    texts: tuple[str, ...]
    padded: object = None

    def recognize(self, waveforms):
        return [Hypothesis((*range(len(text.split())),), text) for text, _ in zip(self.texts, waveforms, strict=True)]


def test_parts_of_utterances():
    lengths = [len(each) / SAMPLE_RATE for each in short_windows.cut([np.zeros(16 * SAMPLE_RATE)] * 4 + [np.zeros(8)])]
    assert lengths == [2.0, 3.0, 4.0, 5.0, 6 / SAMPLE_RATE]


def test_a_line_about_some_utterances(capsys):
    waveforms = [np.zeros(SAMPLE_RATE)] * 3
    long = Said(("so it is", "yes", "no"))
    short = Said(("so it is", "yes " * 40, "no one was there"))
    short_windows.report("some", waveforms, ["so it was", "yes", "no"], long, short)
    short_windows.report("cut", waveforms, (), long, short)
    assert capsys.readouterr().out.splitlines() == [
        "some | 3 | 0.2000 | 8.6000 | 0.8000 | 1 | 1",
        "cut | 3 | - | 8.4000 | 0.6000 | 1 | 1",
    ]
