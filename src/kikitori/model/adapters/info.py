"""`kikitori_adapter.json`: which base an adapter is for, and what it adapts."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError, ModelError
from kikitori.io.config import validate
from kikitori.model.safety.config import read_json
from kikitori.model.safety.trained_on import LARGEST
from kikitori.model.speech_llm import SpeechLLM
from kikitori.model.weights import weights_digest
from kikitori.types import Component

T = TypeVar("T")

INFO = "kikitori_adapter.json"
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Positive = Annotated[float, Field(gt=0.0)]
_VOLATILE = frozenset({"transformers_version", "_name_or_path", "dtype", "torch_dtype"})


@dataclass(frozen=True, config=STRICT)
class Fingerprint:
    """SHA-256 of what makes a base recogniser the one that it is."""

    config: str
    weights: str


@dataclass(frozen=True, config=STRICT)
class AdapterInfo:
    """Contents of `kikitori_adapter.json`.

    Attributes:
        base_name: What the base was called when the adapter was made; only ever shown.
        base: Fingerprint of the base.
        labels_per_second: The highest rate of labels that base and adapter have seen (see `TrainedOn`).
        max_seconds: The longest utterance that they have seen.
    """

    format: Literal[1]
    base_name: str
    base: Fingerprint
    components: Annotated[list[Component], Field(min_length=1)]
    labels_per_second: Annotated[Positive, Field(le=LARGEST["labels_per_second"])]
    max_seconds: Annotated[Positive, Field(le=LARGEST["max_seconds"])]


def fingerprint(path_or_id: str | Path, model: SpeechLLM) -> Fingerprint:
    """The fingerprint of a recogniser that was just loaded from a folder or the hub; about a second per GB."""
    config = json.dumps(_lasting(read_json(path_or_id, "config.json")), sort_keys=True)
    return Fingerprint(hashlib.sha256(config.encode()).hexdigest(), weights_digest(model))


def read_info(adapter: str | Path) -> AdapterInfo:
    """What an adapter folder, or that of a run, says of itself.

    Raises:
        ModelError: It is missing or damaged.
    """
    folder = adapter_folder(adapter)
    return checked(AdapterInfo, read_json(folder, INFO), folder, INFO)


def adapter_folder(adapter: str | Path) -> Path:
    """The folder of an adapter, of its own or of its run.

    Raises:
        ModelError: There is none.
    """
    folder = Path(adapter)
    if not (folder / INFO).is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    if not folder.is_dir():
        raise ModelError("no such adapter folder", where=adapter, remedy="give a folder that kikitori adapt wrote")
    if not (folder / INFO).is_file():
        raise ModelError(
            f"{INFO} is missing, which says what base the adapter is for",
            where=adapter,
            remedy="give a folder that kikitori adapt wrote",
        )
    return folder


def checked(schema: type[T], values: dict[str, Any], folder: Path, name: str) -> T:
    """The contents of a JSON file of an adapter.

    Raises:
        ModelError: They do not fit the schema.
    """
    try:
        return validate(schema, values, name)
    except ConfigError as error:
        raise ModelError(f"{error.where}: {error.what}", where=folder, remedy="copy the folder again") from None


def _lasting(values: Any) -> Any:
    """What of config.json describes the model, and not how and by what it was written."""
    if isinstance(values, dict):
        return {key: _lasting(value) for key, value in values.items() if key not in _VOLATILE}
    return values
