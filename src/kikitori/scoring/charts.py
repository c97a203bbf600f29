"""Lines over time and grids of rates, as pictures that a page draws in its own colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

WIDTH, HEIGHT = 640.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 55.0, 12.0, 24.0, 40.0
COLOURS = 6
"""A page has so many; further lines are dashed."""
CELL_WIDTH, CELL_HEIGHT = 56.0, 28.0
STEPS = (1.0, 2.0, 5.0)
"""Between round numbers, times a power of ten."""
ROUNDING = 1e-9
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A curve in pixels, with its colour (0 to 5), and what it ends at."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool
    last: str


@dataclass(frozen=True)
class LineChart:
    """Curves over the same axes, with the places of the marks of both."""

    title: str
    over: str
    lines: tuple[Line, ...]
    x_marks: tuple[tuple[float, str], ...]
    y_marks: tuple[tuple[float, str], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class HeatCell:
    """A rate in its place; the shade is 0 for the best and 1 for the worst of the grid."""

    x: float
    y: float
    text: str
    shade: float
    best: bool


@dataclass(frozen=True)
class HeatMap:
    """Rates over the values of two settings."""

    title: str
    columns: str
    rows: str
    cells: tuple[HeatCell, ...]
    x_marks: tuple[tuple[float, str], ...]
    y_marks: tuple[tuple[float, str], ...]
    width: float
    height: float
    cell_width: float = CELL_WIDTH
    cell_height: float = CELL_HEIGHT


def line_chart(title: str, over: str, curves: Mapping[str, Curve]) -> LineChart | None:
    """Draws curves by name; None unless one of them has two points.

    Args:
        title: What goes up.
        over: What goes to the right.
        curves: Pairs of both.
    """
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    points = [point for curve in curves.values() for point in curve]
    x_low, x_high = _ends([x for x, _ in points])
    y_low, y_high = _ends([y for _, y in points])

    def x_of(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        Line(
            name,
            tuple((x_of(x), y_of(y)) for x, y in curve),
            number % COLOURS,
            number >= COLOURS,
            f"{curve[-1][1]:.3g}",
        )
        for number, (name, curve) in enumerate(curves.items())
        if curve
    ]
    return LineChart(
        title=title,
        over=over,
        lines=tuple(lines),
        x_marks=tuple((x_of(value), f"{value:g}") for value in marks_between(x_low, x_high)),
        y_marks=tuple((y_of(value), f"{value:g}") for value in marks_between(y_low, y_high)),
    )


def heat_map(
    title: str,
    columns: tuple[str, Sequence[str]],
    rows: tuple[str, Sequence[str]],
    rates: Mapping[tuple[str, str], float],
) -> HeatMap:
    """Draws rates, which are fractions, as percent; of cells that have none there is nothing.

    Args:
        title: What the rates are.
        columns: A setting and its values, from left to right.
        rows: Another one, from top to bottom.
        rates: By the value of the column and that of the row; at least one.
    """
    left = 10.0 + 7.5 * max(map(len, rows[1]))
    low, high = min(rates.values()), max(rates.values())
    cells = [
        HeatCell(
            x=left + CELL_WIDTH * columns[1].index(column),
            y=TOP + CELL_HEIGHT * rows[1].index(row),
            text=f"{100.0 * rate:.2f}",
            shade=round((rate - low) / (high - low), 3) if high > low else 0.0,
            best=rate == low,
        )
        for (column, row), rate in rates.items()
    ]
    return HeatMap(
        title=title,
        columns=columns[0],
        rows=rows[0],
        cells=tuple(cells),
        x_marks=tuple((left + CELL_WIDTH * (n + 0.5), value) for n, value in enumerate(columns[1])),
        y_marks=tuple((TOP + CELL_HEIGHT * (n + 0.5), value) for n, value in enumerate(rows[1])),
        width=left + CELL_WIDTH * len(columns[1]) + 4.0,
        height=TOP + CELL_HEIGHT * len(rows[1]) + 4.0,
    )


def marks_between(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    rough = (high - low) / 5
    size = 10.0 ** int(log10(rough) // 1)
    step = next(step * size for step in (*STEPS, 10.0) if step * size >= rough)
    first, last = ceil(low / step - ROUNDING), floor(high / step + ROUNDING)
    return [round(step * number, 6) for number in range(max(0, first), last + 1)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
