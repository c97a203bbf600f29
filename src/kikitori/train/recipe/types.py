"""Numbers with bounds, and how strict the sections of recipes are."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
ProperFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _NamesModel:
    """Marks a string that names a model."""


ModelPath = Annotated[str, _NamesModel()]
"""Hub id, model folder or run; `kikitori.train.recipe.recipe.resolve` turns a run into its model folder."""
