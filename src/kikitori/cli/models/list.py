"""`kikitori list`: the recognisers on this machine."""

from kikitori.cli.common import one_line_errors


def models() -> None:
    """Name the recognisers on this machine that --model takes: name, kind, language, megabytes, and what they lack."""
    with one_line_errors():
        from kikitori.workflows.machine.models import models_at_hand

        rows = [
            (each.name, each.kind, each.language or "-", f"{each.megabytes:.0f} MB", each.problem or "")
            for each in models_at_hand()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
