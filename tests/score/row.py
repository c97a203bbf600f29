"""One line of the scorecard."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """How often a promise held.

    Attributes:
        name: Number of the row.
        promise: What is promised.
        kept: How often it held.
        tries: How often it was tried.
        details: Further findings, such as how another trainer fared.
    """

    name: str
    promise: str
    kept: int
    tries: int
    details: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.kept == self.tries > 0
