"""Strict reading of YAML into typed dataclasses.

Text goes in (a YAML file, the file that it names as its `base`, and `a.b=value` overrides, with OmegaConf
interpolation), a validated object comes out. An unknown key, a wrong type or an impossible value is a `ConfigError`
that names the key's path.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from kikitori.errors import ConfigError

T = TypeVar("T")

BASE = "base"
MAX_YAML_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_INTERPOLATIONS = 16
MAX_INTERPOLATED_TEXT = 100_000
# Nothing that OmegaConf would call, such as ${oc.env:HOME}.
REFERENCE = re.compile(r"\$\{\s*[\w.\[\]-]+\s*\}")


def merge_yaml(path: Path | str | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Reads YAML on top of its base, applies overrides and resolves interpolations, without validating.

    A file with the key `base` (a path relative to its own folder) says only what differs: each of its top-level keys
    takes the place of the base's, whole. A base has no base. An override names an entry of a list by its number from 0:
    `data.train.0.path=FILE`.

    Raises:
        ConfigError: The file is missing or is not YAML, or an override is not of the form section.key=value or names no
            entry of a list.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    where: object = path
    try:
        config = OmegaConf.create({} if path is None else _read_with_base(Path(path)))
        for override in overrides:
            where = override
            key, equals, value = override.partition("=")
            if not key or not equals:
                raise ConfigError("an override needs the form section.key=value", where=override)
            _check_yaml(value, override)
            given: dict[str, Any] = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))  # type: ignore[assignment]
            try:
                OmegaConf.update(config, key, given["value"], merge=True)
            except (IndexError, TypeError, ValueError):
                remedy = "count entries from 0, as in data.train.0.path=FILE, or give the whole list"
                raise ConfigError("the list has no such entry", where=override, remedy=remedy) from None
        where = path
        resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except (YAMLError, OmegaConfBaseException, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read as YAML ({_first_line(error)})", where=where) from None
    return resolved


def base_of(path: Path | str) -> str | None:
    """The base that a YAML file names, as it stands there; None where it has none.

    Raises:
        ConfigError: The file is missing or cannot be read.
    """
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        base = _read_values(Path(path)).get(BASE)
    except (YAMLError, OmegaConfBaseException, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read as YAML ({_first_line(error)})", where=path) from None
    return base if isinstance(base, str) else None


def validate(schema: type[T], values: dict[str, Any], where: str) -> T:
    """Checks plain values against a pydantic dataclass.

    Raises:
        ConfigError: The first problem, with the key's path; further problems are counted.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        # By way of JSON, because strict validation then takes lists for tuples and mappings for dataclasses.
        return TypeAdapter(schema).validate_json(json.dumps(values))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = min(problems, key=lambda each: each["type"] in _MISSING)  # of a misspelt key, how it is written
        keys, siblings = _locate(schema, first["loc"])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(
            _describe(first) + more,
            where=f"{where}: {'.'.join(keys) or 'top level'}",
            remedy=_suggestion(keys[-1], siblings) if first["type"] in _UNEXPECTED else None,
        ) from None


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes, section by section."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        result[key] = merged(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like `word`, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return matches[0] if matches else None


_UNEXPECTED = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument")


def _read_with_base(path: Path) -> dict[str, Any]:
    values = _read_values(path)
    if BASE not in values:
        return values
    base = values.pop(BASE)
    if not isinstance(base, str):
        raise ConfigError("the base must be the path of a file", where=f"{path}: {BASE}")
    inherited = _read_values(path.parent / base)
    if BASE in inherited:
        raise ConfigError("a base cannot have a base", where=path.parent / base, remedy="write its sections out")
    return inherited | values


def _read_values(path: Path) -> dict[str, Any]:
    """A file's values, interpolations as they stand."""
    from omegaconf import OmegaConf

    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(_read_text(path)))  # type: ignore[assignment]
    return values


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError("is a folder, where a YAML file is due", where=path, remedy="name the file")
    if not path.is_file():
        raise ConfigError("no such file", where=path, remedy="check the path")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ConfigError("larger than 1 MB", where=path, remedy="a recipe is a short text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("not a UTF-8 text file", where=path) from None
    if _check_yaml(text, path) not in (None, "{"):
        raise ConfigError("the top level must be a mapping of keys to values", where=path)
    return text


def _check_yaml(text: str, where: object) -> str | None:
    """Refuses YAML that is small but hard to digest; returns the bracket that opens the top level, if any.

    Nested aliases and chained interpolations expand without bound, deep nesting overflows the parser's stack, and tags
    make values that no schema knows.
    """
    import yaml

    opening: str | None = None
    depth = interpolations = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        match token:
            case yaml.AliasToken() | yaml.AnchorToken():
                raise ConfigError(
                    "YAML anchors and aliases are not supported", where=where, remedy="write the value out"
                )
            case yaml.TagToken():
                raise ConfigError("YAML tags are not supported", where=where, remedy="write a plain value")
            case yaml.BlockMappingStartToken() | yaml.FlowMappingStartToken():
                opening, depth = opening or "{", depth + 1
            case yaml.BlockSequenceStartToken() | yaml.FlowSequenceStartToken():
                opening, depth = opening or "[", depth + 1
            case yaml.BlockEndToken() | yaml.FlowMappingEndToken() | yaml.FlowSequenceEndToken():
                depth -= 1
            case yaml.ScalarToken():
                opening = opening or token.value
                interpolations += _count_interpolations(token.value, where)
        if depth > MAX_DEPTH:
            raise ConfigError(f"nested more than {MAX_DEPTH} levels deep", where=where)
    if interpolations > MAX_INTERPOLATIONS:
        raise ConfigError(f"more than {MAX_INTERPOLATIONS} interpolations", where=where, remedy="write the values out")
    if interpolations and len(text) > MAX_INTERPOLATED_TEXT:
        raise ConfigError("interpolations in so long a text", where=where, remedy="write the values out")
    return opening


def _count_interpolations(value: str, where: object) -> int:
    # In the value as YAML reads it: "\x24{a}" is one, too.
    count = value.count("${")
    if count != len(REFERENCE.findall(value)):
        raise ConfigError(
            "an interpolation can only name another key", where=where, remedy="write ${section.key}, or the value"
        )
    return count


def _first_line(error: Exception) -> str:
    """What is wrong; of YAML, at which line."""
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem.removeprefix('but ')}, line {error.problem_mark.line + 1}"
    return str(error).partition("\n")[0]


def _describe(problem: Any) -> str:
    if problem["type"] in _UNEXPECTED:
        return "unexpected key"
    if problem["type"] in _MISSING:
        return "required key is missing"
    message: str = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    return message if isinstance(value, dict | list) else f"{message} (got {value!r})"[:300]


def _locate(schema: type[Any], location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Translates pydantic's location of a problem: the keys as in the user's file, and the last key's siblings."""
    keys: list[str] = []
    owners, inside = [schema], [schema]
    for part in location:
        if part == "[key]" or _has_tag(inside, part):
            inside = [cls for cls in inside if _has_tag([cls, cls], part)]
            continue
        keys.append(str(part))
        if isinstance(part, str):
            owners = inside
            types = [field.type for cls in owners for field in dataclasses.fields(cls) if field.name == part]
            # What is no field is the key of a mapping, whose values come next.
            inside = [cls for annotation in types for cls in _dataclasses(annotation)] if types else inside
    return keys, [field.name for cls in owners for field in dataclasses.fields(cls)]


def _has_tag(union: list[Any], part: int | str) -> bool:
    # The tag of a discriminated union is part of pydantic's location but not of the user's file.
    return len(union) > 1 and any(part in get_args(field.type) for cls in union for field in dataclasses.fields(cls))


def _dataclasses(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _dataclasses(argument)]


def _suggestion(key: str, known: list[str]) -> str:
    guess = did_you_mean(key, known)
    return f"did you mean '{guess}'?" if guess else f"known keys: {', '.join(known)}"
