"""Staged unfreezing: which parameters learn from which optimiser step on (papers.md B2.3).

What does not learn yet has no gradient, and so neither decay nor averages in AdamW. The stage follows from the step
alone: a resumed run is in the stage where it stopped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from kikitori.errors import TrainingError


@dataclass(frozen=True)
class Stages:
    """The plan of a run.

    Attributes:
        starts: The step, from 0, at which each parameter that ever learns begins to, by name.
    """

    module: nn.Module
    starts: Mapping[str, int]
    component: Callable[[str], str]

    @property
    def later(self) -> list[int]:
        """The steps at which something begins to learn, but for the first."""
        return sorted({*self.starts.values()} - {0})

    def enter(self, step: int) -> None:
        """Before a step: sets `requires_grad` for its stage, and training mode."""
        for name, parameter in self.module.named_parameters():
            if name in self.starts:
                parameter.requires_grad_(step >= self.starts[name])
        self.module.train()  # frozen encoders stay in evaluation mode

    def describe(self) -> list[str]:
        """What begins to learn later, a line for each component."""
        return [
            f"{part} learns from step {start} on"
            for start in self.later
            for part in sorted({self.component(name) for name, at in self.starts.items() if at == start})
        ]


def plan(module: nn.Module, unfreeze_at: Callable[[str], int], component: Callable[[str], str]) -> Stages:
    """The stages of a module whose policies are set: what learns requires gradients now.

    Raises:
        TrainingError: Nothing learns, or nothing yet at the first step.
    """
    starts = {name: unfreeze_at(name) for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not starts:
        raise TrainingError("nothing learns, everything is frozen", remedy="set a policy to full or lora")
    if min(starts.values()) > 0:
        raise TrainingError(
            f"nothing learns before step {min(starts.values())}", where="unfreeze_at", remedy="leave one of them at 0"
        )
    return Stages(module, starts, component)
