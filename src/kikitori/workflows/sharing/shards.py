"""Shards of a list of work: the share of each of several processes that know nothing of each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kikitori.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th item, from item `number` on, which counts from 1; the whole of it is 1 of 1."""

    number: int = 1
    count: int = 1

    @property
    def part(self) -> str:
        """Ends the names of files that this shard alone writes; nothing for the whole."""
        return f".{self.number}-of-{self.count}" if self.count > 1 else ""

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this shard, in their order."""
        return items[self.number - 1 :: self.count]


WHOLE = Shard()


def read_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that a text such as `2/4` names; without one that of this process of torchrun, or the whole.

    Raises:
        ConfigError: The text names none.
    """
    if text is None:
        return Shard(int(environment.get("RANK", "0")) + 1, int(environment.get("WORLD_SIZE", "1")))
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = WHOLE if found is None else Shard(int(found[1]), int(found[2]))
    if found is None or not 0 < shard.number <= shard.count:
        raise ConfigError("no shard", where=f"--shard {text}", remedy="write 1/4 to 4/4 for the quarters of the work")
    return shard
