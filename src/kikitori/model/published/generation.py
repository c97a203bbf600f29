"""What `generation_config.json` says of a recogniser's decoder, checked as it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError
from kikitori.text.units import TokenizerUnits


@dataclass(frozen=True)
class Entries:
    """Those of a model's `generation_config.json`, checked as they are read.

    Attributes:
        where: The model, for errors.
        values: The entries.
        vocabulary: Labels of the decoder.
    """

    where: str | Path
    values: Mapping[str, Any]
    vocabulary: int

    def label(self, name: str) -> int:
        """An entry that is a label.

        Raises:
            ModelError: It is none.
        """
        return self.checked(name, self.values.get(name))

    def labels(self, name: str) -> tuple[int, ...]:
        """An entry that is a label or a list of some, perhaps an empty one or none at all.

        Raises:
            ModelError: It holds something else.
        """
        value = self.values.get(name) or []
        return tuple(self.checked(name, each) for each in (value if isinstance(value, list) else [value]))

    def by_name(self, name: str) -> dict[str, int]:
        """An entry that gives labels by names, these without `<|` and `|>`.

        Raises:
            ModelError: It gives something else.
        """
        value = self.values.get(name)
        pairs = value.items() if isinstance(value, dict) else ()
        return {str(key).strip("<|>"): self.checked(name, each) for key, each in pairs}

    def checked(self, name: str, value: object) -> int:
        """A value of an entry, which is a label.

        Raises:
            ModelError: It is none.
        """
        if type(value) is not int or not 0 <= value < self.vocabulary:
            raise ModelError(
                f"generation_config.json has no label of the decoder as {name} but {str(value)[:40]!r}",
                where=self.where,
                remedy="copy the file that belongs to the model",
            )
        return value


@dataclass(frozen=True)
class Source:
    """What rules are made of.

    Attributes:
        where: The model, for errors.
        values: Entries of its `generation_config.json`.
        config: Configuration of its decoder.
        units: What its decoder writes.
        language: The language that is asked for, None for none.
    """

    where: str | Path
    values: Mapping[str, Any]
    config: Any
    units: TokenizerUnits
    language: str | None = None

    @property
    def entries(self) -> Entries:
        """The same values, checked."""
        return Entries(self.where, self.values, int(self.config.vocab_size))
