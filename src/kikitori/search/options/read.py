"""Options from a name, a YAML file or overrides, and back into YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kikitori.errors import ConfigError
from kikitori.io.config import merge_yaml, validate
from kikitori.scorers.options import ScorerOptions
from kikitori.search.old_options import new_form
from kikitori.search.options.autoregressive import GreedySearch
from kikitori.search.options.frames import CTCBeamSearch
from kikitori.search.options.searches import SEARCHES, Decoding
from kikitori.types import DecoderName


def load_decoding(name_or_yaml: str | Path, overrides: Sequence[str] = ()) -> Decoding:
    """Options from the name of a search or a YAML file, with overrides such as `decoding.max_labels=50`.

    Raises:
        ConfigError: No such search or file, or an option that does not fit.
    """
    if str(name_or_yaml).endswith((".yaml", ".yml")):
        return with_overrides(_read(name_or_yaml), overrides)
    return with_overrides(_validated({"search": str(name_or_yaml)}, "--decoding"), overrides)


def with_overrides(decoding: Decoding, overrides: Sequence[str]) -> Decoding:
    """The options with overrides such as `decoding.max_labels=50` applied.

    `decoding.search=NAME` changes the search; what was set of another one's options is then left behind.
    `decoding.scorers.NAME=null` takes a scorer away.

    Raises:
        ConfigError: An override that names no option or does not fit.
    """
    for override in overrides:
        if not override.startswith("decoding."):
            raise ConfigError("no such option", where=override, remedy="options here begin with decoding.")
    changes = merge_yaml(None, [override.removeprefix("decoding.") for override in overrides])
    kept = asdict(decoding) if changes.get("search", decoding.search) == decoding.search else {}
    changes = new_form(changes, str(changes.get("search", decoding.search)), "decoding")
    return _validated(_merged(kept, changes), "decoding")


def asked_decoder(decoding: Decoding | str | None, overrides: Sequence[str] = ()) -> DecoderName | None:
    """The decoder that a search, by options, YAML file or name, or overrides ask for; None where nothing does.

    Raises:
        ConfigError: No such search, file or decoder, or a search that uses none.
    """
    match decoding:
        case str():
            options = load_decoding(decoding)
        case _:
            options = decoding or GreedySearch()
    return with_overrides(options, [each for each in overrides if each.startswith("decoding.decoder=")]).decoder


def decoding_yaml(options: Decoding) -> str:
    """The options that differ from a search's own, as the text of a YAML file."""
    import yaml

    values = _changed(asdict(options), asdict(type(options)()))
    return yaml.safe_dump({"search": options.search, **values}, sort_keys=False, allow_unicode=True)


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not the defaults, section by section."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if value == default:
            continue
        if key == "scorers":
            plain = asdict(ScorerOptions())
            changed[key] = {name: _changed(each, plain) for name, each in value.items()}
        elif isinstance(value, dict) and "search" in value:
            own = asdict(SEARCHES[value["search"]]())
            # The first search is CTC's unless its name is given.
            named = {} if value["search"] == CTCBeamSearch.search and key == "first" else {"search": value["search"]}
            changed[key] = named | _changed(value, own)
        elif isinstance(value, dict):
            changed[key] = _changed(value, default or {})
        else:
            changed[key] = value
    return changed


def _read(file: str | Path) -> Decoding:
    values = merge_yaml(file)
    name = values.get("search", GreedySearch.search)
    return _validated(new_form(values, str(name), str(file)), str(file))


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes applied, section by section."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, dict) and not _another_search(old, change):
            merged[key] = _merged(old, change)
        else:
            merged[key] = change
        if key == "scorers" and isinstance(merged[key], dict):
            merged[key] = _without_removed(merged[key], old or {})
    return merged


def _without_removed(scorers: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Scorers but for those that are null now, which have to be old ones."""
    for name in (name for name, options in scorers.items() if options is None and name not in old):
        remedy = f"there are {', '.join(old)}" if old else "there is none"
        raise ConfigError("no such scorer to take away", where=f"scorers.{name}", remedy=remedy)
    return {name: options for name, options in scorers.items() if options is not None}


def _another_search(old: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether a section changes its search, so that the options of the old one no longer apply."""
    return bool(change.get("search", old.get("search")) != old.get("search"))


def _validated(values: dict[str, Any], where: str) -> Decoding:
    name = values.get("search", GreedySearch.search)
    if not isinstance(name, str) or name not in SEARCHES:
        known = ", ".join(repr(search) for search in SEARCHES)
        raise ConfigError(f"no such search: {name!r}", where=f"{where}: search", remedy=f"known are {known}")
    return validate(SEARCHES[name], values, where)
