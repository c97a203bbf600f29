"""Timing of contenders in one process: they take turns, so that load on the machine meets them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One contender on one input.

    Attributes:
        work: What was done.
        name: Who did it; ours is called `kikitori`.
        seconds: Median over the rounds.
        ratio: Its median over ours, above 1 where ours is faster.
        note: How good the result is, or how it was set up.
    """

    work: str
    name: str
    seconds: float
    ratio: float
    note: str = ""


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender over so many rounds, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in times.items()}


def format_rows(rows: list[Row]) -> str:
    """The rows as an aligned table, a ratio of 2.0 meaning that ours takes half the time."""
    cells = [["work", "contender", "ms", "ratio", "note"]]
    cells += [[row.work, row.name, f"{1000 * row.seconds:.2f}", f"{row.ratio:.2f}", row.note] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    pad: list[Callable[[str, int], str]] = [str.ljust, str.ljust, str.rjust, str.rjust]
    lines = [[put(cell, width) for put, cell, width in zip(pad, line[:4], widths, strict=True)] for line in cells]
    return "\n".join("  ".join([*line, row[4]]).rstrip() for line, row in zip(lines, cells, strict=True))
