"""tools/word_frequencies.py: words as often as they are common."""

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "word_frequencies.py"))


def test_each_word_as_often_as_it_deserves():
    frequencies = {"丁寧": 2.2e-6, "は": 3e-2, "鄭": 1e-8, "猫": 1e-5}
    found = "".join(TOOL["lines"](["丁寧", "鄭", "は", "鄭寧"], frequencies)).split()
    assert found == ["は"] * 100 + ["丁寧"] * 3 + ["鄭"]
