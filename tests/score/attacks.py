"""R8: hostile model folders are refused, run no code, open nothing outside, and cost neither time nor memory."""

from pathlib import Path

from tests.hostile import ATTACKS, open_all
from tests.score.row import Row


def count_attacks(root: Path) -> Row:
    """Opens every attack in a child process under watch."""
    outcomes = open_all(ATTACKS, root)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    return Row(
        "R8",
        "a hostile model folder is refused in one line: no code run, nothing outside opened, under 200 MB",
        sum(outcome.repelled for outcome in outcomes),
        len(outcomes),
        (
            f"slowest {slowest.seconds:.1f} s ({slowest.name}), largest {largest.megabytes:.0f} MB ({largest.name})",
            *(f"NOT repelled: {outcome.name}" for outcome in outcomes if not outcome.repelled),
        ),
    )
