"""Recipes as they were written before: old names, options that have become constants, sections of other tasks.

Works on plain values, before they are validated.
"""

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any

from kikitori.errors import ConfigError
from kikitori.io.config import validate
from kikitori.train.recipe.components import CTC, Prompt
from kikitori.train.recipe.data import Augment

RENAMED = {"denoising": "text_injection", "hold": "kl_to_base"}
"""Old and new names of sections."""

RENAMED_OF_MANIFESTS = {"apart_from": "exclude_overlap_with"}

RETIRED: Mapping[tuple[str, ...], object] = {
    ("optim", "betas"): [0.9, 0.98],
    ("optim", "eps"): 1e-8,
    ("data", "start_seconds"): 30.0,
    ("data", "start_epochs"): 0,
    ("run", "max_skipped_in_row"): 10,
    ("run", "max_skipped_share"): 0.1,
    ("ctc", "character_upsample"): 2,
    ("ctc", "phones", "alignment_weight"): 1.0,
    ("bridge", "ctc_layer"): None,
    ("llm", "auxiliary_weight"): 1.0,
    ("masks", "unmasked_weight"): 0.0,
    ("text_injection", "error_rate"): 0.4,
    ("text_injection", "frames_per_label"): 2.5,
}
"""Options that are constants now, and their values."""


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under today's names; where a section stands under both, the new one's entries count."""
    result: dict[str, Any] = _with_manifests_renamed(dict(values))
    for old, new in RENAMED.items():
        section = result.pop(old, None)
        if section is not None:
            later = result.get(new)
            result[new] = {**section, **later} if isinstance(later, dict) and isinstance(section, dict) else section
    return result


def renamed_overrides(overrides: Iterable[str]) -> list[str]:
    """Overrides such as `denoising.share=0.5` under today's names."""
    result = []
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0]
        result.append(RENAMED.get(section, section) + override[len(section) :])
    return result


def without_retired(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without the options that are constants now, where they have that value."""
    result = dict(values)
    for path, constant in RETIRED.items():
        result = _without(result, path, constant)
    return result


def refuse_retired(values: Mapping[str, Any], where: str) -> None:
    """Refuses what `without_retired` left.

    Raises:
        ConfigError: An option has another value than the constant that it has become.
    """
    for *sections, key in RETIRED:
        section: Any = values
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict) and key in section:
            path, constant = ".".join((*sections, key)), RETIRED[*sections, key]
            what = f"it is no option any more; its value is {json.dumps(constant)}"
            raise ConfigError(what, where=f"{where}: {path}", remedy="leave it out")


def without_unused(
    values: Mapping[str, Any], used: Container[str], known: Container[str], where: str
) -> dict[str, Any]:
    """Values without null, and without sections of other tasks that say nothing.

    Saved recipes of earlier runs hold the sections of all tasks, those not used as null or with their defaults.

    Raises:
        ConfigError: A section of another task says something.
    """
    result = {}
    for name, value in values.items():
        if value is None:
            continue
        if name in used or name not in known:
            result[name] = value
        elif not _says_nothing(name, value, where):
            what = f"task '{values['task']}' does not use the section '{name}'"
            raise ConfigError(what, where=f"{where}: {name}", remedy="leave it out")
    return result


def _says_nothing(name: str, value: Any, where: str) -> bool:
    match name:
        case "interface":
            return bool(value == "prefix")
        case "augment":
            return validate(Augment, value, where) == Augment()
        case "ctc":
            return validate(CTC, value, where) == CTC()
        case "prompt":
            return validate(Prompt, value, where) == Prompt()
        case _:
            return False


def _without(values: dict[str, Any], path: tuple[str, ...], constant: object) -> dict[str, Any]:
    key, *rest = path
    if key not in values:
        return values
    if not rest:
        return {name: value for name, value in values.items() if name != key or value != constant}
    inner = values[key]
    return {**values, key: _without(inner, tuple(rest), constant)} if isinstance(inner, dict) else values


def _with_manifests_renamed(value: Any) -> Any:
    match value:
        case dict():
            return {RENAMED_OF_MANIFESTS.get(key, key): _with_manifests_renamed(item) for key, item in value.items()}
        case list():
            return [_with_manifests_renamed(item) for item in value]
        case _:
            return value
