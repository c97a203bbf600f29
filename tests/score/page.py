"""SCORECARD.md: the rows that were counted, and those of an earlier count for the others."""

import os
import platform
import re
import time
from collections.abc import Sequence

from kikitori.train.loop.provenance import environment
from tests.score.row import Row

HEAD = """# Scorecard

What [docs/reliability.md](docs/reliability.md) promises, counted. Made by `make score`; a short form of each
row is part of `make test`.

| row | promise | held | tries | counted |
| --- | --- | --- | --- | --- |
"""


def page(before: str, counted: Sequence[Row], names: Sequence[str], stock: str) -> str:
    """The page with the rows that were counted; of other names what stood there before.

    Args:
        before: The page as it was, empty for none.
        counted: Rows with new counts.
        names: All rows, in their order.
        stock: How the stock trainer fared, empty if it was not tried.
    """
    today = time.strftime("%Y-%m-%d")
    lines = {name: line for line in before.splitlines() if (name := _named(line, r"\| (R\d+[^|]*?) \|"))}
    details = {name: [] for name in names}
    for line in before.splitlines():
        if name := _named(line, r"\* (R\d+[^:]*):"):
            details.setdefault(name, []).append(line)
    for row in counted:
        lines[row.name] = f"| {row.name} | {row.promise} | {_held(row)} | {row.tries} | {today} |"
        details[row.name] = [f"* {row.name}: {detail}" for detail in row.details]
    stock = f"* {stock}" if stock else next((line for line in before.splitlines() if line.startswith("* stock")), "")
    found = environment()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    body = [lines[name] for name in names if name in lines]
    notes = [line for name in names if name in lines for line in details.get(name, [])]
    return HEAD + "\n".join(
        [
            *body,
            "",
            *notes,
            *([stock] if stock else []),
            "",
            f"Last counted {today} with Python {found['python']} on {os.cpu_count()} cores"
            f" ({platform.machine()}, {platform.system()}), no GPU: {versions}.",
            "",
        ]
    )


def _named(line: str, pattern: str) -> str:
    found = re.match(pattern, line)
    return found[1] if found else ""


def _held(row: Row) -> str:
    return str(row.kept) if row.passed else f"{row.kept} FAILED"
