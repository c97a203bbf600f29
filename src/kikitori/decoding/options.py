"""How to decode: the name of a search and its options, from a name, a YAML file or a model folder's `decoding.yaml`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from kikitori.config import load_config, merge_yaml, validate
from kikitori.errors import ConfigError

SearchName = Literal["greedy", "sampling", "ctc_greedy"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Decoding:
    """A search and its options.

    Attributes:
        search: `greedy` (the speech LLM's most probable labels), `sampling` (drawn from the speech LLM) or
            `ctc_greedy` (the CTC head's most probable outputs).
        max_labels: Most labels per utterance; None derives it from the duration (see `kikitori.decoding.limits`).
            Searches of the speech LLM only.
        min_labels: Fewest labels per utterance; None takes the model's. Searches of the speech LLM only.
        temperature: Divides the logits before drawing. This and what follows: `sampling` only.
        top_k: Draw from so many of the most probable labels; 0 draws from all.
        top_p: Draw from the most probable labels that together reach this probability.
        seed: Decides, together with the audio, what is drawn.
    """

    search: SearchName = "greedy"
    max_labels: Annotated[int, Field(ge=1)] | None = None
    min_labels: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 1234


def load_decoding(name_or_yaml: str | Path, overrides: Sequence[str] = ()) -> Decoding:
    """Options from the name of a search or a YAML file, with overrides such as `decoding.max_labels=50`.

    Raises:
        ConfigError: No such search or file, or an option that does not fit.
    """
    if str(name_or_yaml).endswith((".yaml", ".yml")):
        return with_overrides(load_config(Decoding, name_or_yaml), overrides)
    return with_overrides(validate(Decoding, {"search": str(name_or_yaml)}, "--decoding"), overrides)


def with_overrides(decoding: Decoding, overrides: Sequence[str]) -> Decoding:
    """The options with overrides such as `decoding.max_labels=50` applied.

    Raises:
        ConfigError: An override that names no option or does not fit.
    """
    for override in overrides:
        if not override.startswith("decoding."):
            raise ConfigError("no such option", where=override, remedy="options here begin with decoding.")
    changes = merge_yaml(None, [override.removeprefix("decoding.") for override in overrides])
    return validate(Decoding, asdict(decoding) | changes, "decoding")
