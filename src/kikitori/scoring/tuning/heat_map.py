"""The picture of a tuning: word error rates over two scales, or over one.

Needs matplotlib (`pip install kikitori[train]`); without it there is no picture, and no error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_NUMBERS = 400
"""Cells that still have room for a number each."""
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito, for all kinds of eyes


def draw_heat_map(
    picture: Path, axes: Mapping[str, Sequence[float]], rates: NDArray[np.float64], best: Sequence[float], title: str
) -> bool:
    """Draws rates over the values of one or two scales, and marks the best point.

    Args:
        picture: PNG file to write.
        axes: Values by the name of their scale, ascending; the first goes to the right, the second up.
        rates: Fractions, which are drawn as percent; as many dimensions as axes, in their order.
        best: The value chosen on each axis, on the grid or between.
        title: Above the picture.

    Returns:
        False if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    names, grids, percent = [*axes], [*axes.values()], 100.0 * rates
    columns, *rows = map(len, grids)
    size = (6.4, 4.0) if not rows else (max(5.0, 2.2 + 0.52 * columns), max(3.4, 1.6 + 0.36 * rows[0]))
    figure = Figure(figsize=(min(size[0], 14.0), min(size[1], 12.0)), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    if rows:
        _draw_cells(figure, panel, grids, percent.T, best)
        panel.set_ylabel(f"scale of {names[1]}")
    else:
        panel.plot(grids[0], percent, color=BLUE, marker="o", markersize=3)
        panel.axvline(best[0], color=ORANGE, linestyle=":")
        panel.set_ylabel("WER (%)")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel(f"scale of {names[0]}")
    panel.set_title(title, fontsize="medium")
    figure.savefig(picture, dpi=120)
    return True


def _draw_cells(
    figure: Any, panel: Any, axes: Sequence[Sequence[float]], rates: NDArray[np.float64], best: Sequence[float]
) -> None:
    """Cells of equal size, whatever the steps; rates are percent, (second axis, first axis)."""
    shown = panel.imshow(rates, origin="lower", aspect="auto", cmap="viridis_r")
    figure.colorbar(shown, ax=panel, label="WER (%)")
    for axis, values in zip((panel.xaxis, panel.yaxis), axes, strict=True):
        every = -(-len(values) // 20)
        axis.set_ticks(range(0, len(values), every), [f"{value:g}" for value in values[::every]])
    if rates.size <= MAX_NUMBERS:
        middle = (rates.min() + rates.max()) / 2
        for (row, column), rate in np.ndenumerate(rates):
            colour = "white" if rate > middle else "black"
            panel.text(column, row, f"{rate:.1f}", ha="center", va="center", fontsize=7, color=colour)
    places = [float(np.interp(value, values, range(len(values)))) for value, values in zip(best, axes, strict=True)]
    panel.plot(*places, marker="o", markersize=22, markerfacecolor="none", markeredgecolor=ORANGE, markeredgewidth=2)
