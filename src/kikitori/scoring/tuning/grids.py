"""Scales to try, for every scorer."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, isfinite, prod

from kikitori.errors import ConfigError
from kikitori.scorers.options import CTC, INTERNAL_LM, LENGTH, PRIOR, SPEECH_LLM

MAX_POINTS = 200_000
DIGITS = 9  # of scales, so that 3 · 0.1 is 0.3


@dataclass(frozen=True)
class Grid:
    """Scales to try, from `low` to `high`; a `step` of 0 holds the scale at `low`."""

    low: float
    high: float
    step: float = 0.0

    @property
    def size(self) -> int:
        """How many points it has, counted up to one more than can be tried."""
        return floor(min((self.high - self.low) / self.step + 1e-6, MAX_POINTS)) + 1 if self.step else 1

    @property
    def values(self) -> tuple[float, ...]:
        """Its points, ascending."""
        return tuple(round(self.low + index * self.step, DIGITS) for index in range(self.size))


GRIDS: Mapping[str, Grid] = {
    CTC: Grid(1.0, 1.0),
    PRIOR: Grid(-1.0, 0.0, 0.1),
    INTERNAL_LM: Grid(-1.0, 0.0, 0.1),
    LENGTH: Grid(-1.0, 3.0, 0.5),
    SPEECH_LLM: Grid(0.0, 1.0, 0.1),
}
"""Scales that are tried where none are given, by the name of the scorer."""
LM_GRID = Grid(0.0, 1.0, 0.1)
"""The same of language models, whatever their name."""


def parse_grid(text: str) -> tuple[str, Grid]:
    """A name and its grid from `NAME=FROM:TO:STEP`, or `NAME=VALUE` for a scale that is held.

    Raises:
        ConfigError: It is neither, or it has no points.
    """
    name, _, values = text.partition("=")
    try:
        numbers = [float(value) for value in values.split(":")]
    except ValueError:
        numbers = []
    if not name or len(numbers) not in (1, 3) or not all(map(isfinite, numbers)):
        raise ConfigError("no grid of scales", where=f"--scale {text}", remedy="write NAME=FROM:TO:STEP or NAME=VALUE")
    grid = Grid(numbers[0], numbers[0]) if len(numbers) == 1 else Grid(*numbers)
    if len(numbers) == 3 and not (grid.step > 0.0 and grid.low <= grid.high):
        raise ConfigError("a grid without points", where=f"--scale {text}", remedy="write NAME=FROM:TO:STEP, upwards")
    if name == CTC and grid != GRIDS[CTC]:
        raise ConfigError("the scale of ctc is 1", where=f"--scale {text}", remedy="tune the others, relative to it")
    return name, grid


def check_grids(grids: Mapping[str, Grid]) -> None:
    """Refuses grids with more points than can be tried.

    Raises:
        ConfigError: With how many each has.
    """
    if prod(grid.size for grid in grids.values()) > MAX_POINTS:
        sizes = " x ".join(f"{name} {grid.size}" for name, grid in grids.items() if grid.size > 1)
        raise ConfigError(
            f"{sizes} points are more than {MAX_POINTS}",
            where="--scale",
            remedy="give larger steps (NAME=FROM:TO:STEP) or hold some scales (NAME=VALUE)",
        )
