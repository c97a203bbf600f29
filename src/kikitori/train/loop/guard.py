"""What keeps a run's weights sound: steps whose loss or gradient is not finite are skipped, counted and named."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from kikitori.errors import TrainingError
from kikitori.io.files import append_text
from kikitori.train.loop.state import Weights, copy_into, statistics
from kikitori.train.parallel import processes

SKIPPED = "skipped.jsonl"
MIN_SKIPPED_FOR_FRACTION = 20
"""After fewer skipped steps their fraction says little."""


@dataclass
class Guard:
    """Skips steps that would spoil the weights, and ends the run when they are too many.

    A forward pass over numbers that are not finite also spoils what layers gather on the way, such as batch-norm
    statistics; these are put back.

    Attributes:
        writes: Whether this process keeps `skipped.jsonl`.
        in_a_row: Steps skipped since the last good one.
        max_in_a_row: So many of them end the run.
        max_fraction: More than this fraction of the steps ends it, from `MIN_SKIPPED_FOR_FRACTION` skipped ones on.
    """

    module: nn.Module
    directory: Path
    log: Callable[[str], None]
    writes: bool = True
    skipped: int = 0
    in_a_row: int = 0
    max_in_a_row: int = 10
    max_fraction: float = 0.1
    _copies: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._statistics = statistics(self.module)

    def remember(self) -> None:
        """Before the first batch of a step: keeps a copy of what its forward passes may spoil."""
        self._copies = {name: tensor.clone() for name, tensor in self._statistics.items()}

    def passed(self) -> None:
        """After a step that moved the weights."""
        self.in_a_row = 0

    def skip(self, problem: str | None, row: dict[str, Any], utt_ids: Sequence[str]) -> None:
        """After a step that must not move the weights; every process comes here.

        `problem` is what is not finite in this process, None if the trouble is another one's. The row says where the
        step stands: `epoch` and `batch` (from 0) and `step`.

        Raises:
            TrainingError: There were too many such steps.
        """
        found = processes.gather((problem, utt_ids))
        what = next(problem for problem, _ in found if problem is not None)
        # Where a single process has the trouble, its utterances are the ones to look at.
        utt_ids = [name for problem, names in found if problem is not None for name in names]
        copy_into(self._statistics, self._copies)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.writes:
            line = json.dumps({**row, "what": what, "utterances": list(utt_ids)})
            append_text(self.directory / SKIPPED, f"{line}\n")
        names = f" ({', '.join(utt_ids[:8])}{', ...' if len(utt_ids) > 8 else ''})" if utt_ids else ""
        where = f"epoch {row['epoch'] + 1}, batch {row['batch']}{names}"
        self.log(f"warning: {where}: {what}; step skipped ({self.skipped} so far)")
        fraction = self.skipped / (self.skipped + row["step"])
        if self.in_a_row >= self.max_in_a_row:
            limit = f"{self.in_a_row} steps in a row"
        elif self.skipped >= MIN_SKIPPED_FOR_FRACTION and fraction > self.max_fraction:
            limit = f"{100 * fraction:.0f} % of the steps"
        else:
            return
        raise TrainingError(
            f"{what}, and so it was in {limit}",
            where=where,
            remedy=f"lower optim.lr or look at the utterances in {SKIPPED}; the last checkpoint is sound, see --resume",
        )
