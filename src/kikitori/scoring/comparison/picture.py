"""WER against RTFx of several systems, as points of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from kikitori.scoring.charts import STEPS, marks_between
from kikitori.scoring.comparison.compare import Comparison

WIDTH, HEIGHT = 640.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 30.0, 20.0, 45.0
"""Margins: the numbers of systems stand to the right of their points."""
LETTER_WIDTH, LETTER_HEIGHT = 20.0, 12.0


@dataclass(frozen=True)
class Point:
    """A system in the picture; on the front, no other one is both faster and better.

    Attributes:
        label_y: Where its number stands, beside the point and clear of the numbers of others.
    """

    name: str
    x: float
    y: float
    front: bool
    label_y: float


@dataclass(frozen=True)
class Picture:
    """Points, the line through those on the front, and the marks of both axes with their places."""

    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]
    x_marks: tuple[tuple[float, str], ...]
    y_marks: tuple[tuple[float, str], ...]
    rate: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def draw(found: Comparison) -> Picture | None:
    """The error rate of the systems over their RTFx, which has a logarithmic axis; None unless two have an RTFx."""
    measured = [
        (score.system, speed.rtfx, 100.0 * score.words.rate)
        for score, speed in zip(found.totals, found.speeds, strict=True)
        if speed.rtfx
    ]
    if len(measured) < 2:
        return None
    xs, ys = [log10(speed) for _, speed, _ in measured], [errors for *_, errors in measured]
    (x_low, x_high), (y_low, y_high) = _range(xs, 0.05), _range(ys, 0.5)

    def x_of(value: float) -> float:
        return round(LEFT + (log10(value) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    on_front = pareto([(speed, errors) for _, speed, errors in measured])
    points: list[Point] = []
    for (name, speed, errors), front in zip(measured, on_front, strict=True):
        x, y = x_of(speed), y_of(errors)
        points.append(Point(name, x, y, front, _clear(x, y, points)))
    decades = range(int(x_low) - 1, int(x_high) + 2)
    speeds = [
        step * 10.0**decade for decade in decades for step in STEPS if x_low <= log10(step * 10.0**decade) <= x_high
    ]
    return Picture(
        points=tuple(points),
        front=tuple(sorted((point.x, point.y) for point in points if point.front)),
        x_marks=tuple((x_of(speed), f"{speed:g}") for speed in speeds),
        y_marks=tuple((y_of(errors), f"{errors:g}") for errors in marks_between(y_low, y_high)),
        rate=found.rate,
    )


def pareto(systems: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some systems, given as speed and error rate, are not beaten in both by another one."""
    return [
        not any(
            other_speed >= speed and other_rate <= rate and (other_speed, other_rate) != (speed, rate)
            for other_speed, other_rate in systems
        )
        for speed, rate in systems
    ]


def _clear(x: float, y: float, others: Sequence[Point]) -> float:
    """The height at which a number beside a point covers none of the others', as near as there is one above."""
    near = sorted((point.label_y for point in others if abs(point.x - x) < LETTER_WIDTH), reverse=True)
    for label_y in near:
        if abs(label_y - y) < LETTER_HEIGHT:
            y = round(label_y - LETTER_HEIGHT, 1)
    return y


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """From below the smallest to above the largest value."""
    low, high = min(values), max(values)
    around = max(margin, 0.1 * (high - low))
    return low - around, high + around
