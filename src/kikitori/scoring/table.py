"""Tables of plain text, for terminals and for grep, and of Markdown."""

import io
import re
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first row being the heading; the first column to the left, others to the right.

    Wide characters (kanji, kana) take two places.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(rows[0]):
        table.add_column(Text(heading), justify="right" if number else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    # Neither the width nor the colours of a terminal: the same text everywhere.
    console = Console(file=io.StringIO(), width=10_000, color_system=None, legacy_windows=False)
    with console.capture() as output:
        console.print(table)
    return output.get().rstrip("\n")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same rows in Markdown, as GitHub has it; the first column to the left, others to the right."""
    heading, *others = [[_markdown(cell) for cell in row] for row in rows]
    sides = ["---", *("---:" for _ in heading[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, sides, *others))


def _markdown(text: str) -> str:
    """A text that Markdown shows as it stands, on one line."""
    # Inside words _ is no emphasis.
    escaped = re.sub(r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return " ".join(escaped.split())
