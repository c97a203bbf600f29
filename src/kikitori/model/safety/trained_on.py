"""What `generation_config.json` of a recogniser says of its training data, within bounds."""

from pathlib import Path
from typing import get_args

from kikitori.errors import ModelError
from kikitori.model.safety.config import read_json
from kikitori.types import LengthRule, TrainedOn

LARGEST = {"labels_per_second": 1_000, "max_seconds": 1_000_000}
"""Beyond these, decoding would not come to an end."""
LARGEST_MIN_LABELS = 1_000


def read_trained_on(path_or_id: str | Path) -> TrainedOn:
    """What a recogniser remembers of its training data, without its network.

    Raises:
        ModelError: The entries are missing or absurd.
    """
    if read_json(path_or_id, "config.json").get("model_type") == "nue_asr":
        from kikitori.model.published.nue_asr import TRAINED_ON

        return TRAINED_ON
    values = read_json(path_or_id, "generation_config.json")
    for name, largest in LARGEST.items():
        value = values.get(name)
        if not isinstance(value, int | float) or not 0 < value <= largest:
            raise _wrong_entry(path_or_id, f"no positive number as {name}")
    rule = values.get("length_rule", TrainedOn.length_rule)
    if rule not in get_args(LengthRule):
        raise _wrong_entry(path_or_id, f"an unknown length_rule {rule!r}")
    least = values.get("min_labels", TrainedOn.min_labels)
    if type(least) is not int or not 0 <= least <= LARGEST_MIN_LABELS:
        raise _wrong_entry(path_or_id, f"no whole number as min_labels but {least!r}")
    language = values.get("language")
    return TrainedOn(
        float(values["labels_per_second"]),
        float(values["max_seconds"]),
        None if language is None else str(language),
        rule,
        least,
    )


def _wrong_entry(path_or_id: str | Path, what: str) -> ModelError:
    return ModelError(f"generation_config.json has {what}", where=path_or_id, remedy="copy the folder again")
