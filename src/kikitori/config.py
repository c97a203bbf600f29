"""Strict reading of YAML into typed dataclasses.

Text goes in (a YAML file and `a.b=value` overrides, with OmegaConf interpolation), a validated object comes out.
An unknown key, a wrong type or an impossible value is a `ConfigError` that names the key's path.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kikitori.errors import ConfigError

T = TypeVar("T")

MAX_YAML_BYTES = 1_000_000


def load_config(schema: type[T], path: Path | str | None, overrides: Sequence[str] = ()) -> T:
    """Reads a YAML file into `schema`, a pydantic dataclass.

    Args:
        schema: The dataclass to fill.
        path: YAML file, or None to start from the defaults.
        overrides: Strings `section.key=value`; the value is read as YAML.

    Raises:
        ConfigError: The file is missing, is not YAML, or does not fit the schema.
    """
    where = str(path) if path is not None else "overrides"
    return validate(schema, merge_yaml(path, overrides), where)


def merge_yaml(path: Path | str | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Reads YAML, applies overrides and resolves interpolations, without validating."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config: Any = OmegaConf.create({} if path is None else _read_text(Path(path)))
        if not isinstance(config, DictConfig):
            raise ConfigError("the top level must be a mapping of keys to values", where=path)
        for override in overrides:
            if "=" not in override:
                raise ConfigError("an override needs the form section.key=value", where=override)
        config = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot be read as YAML ({str(error).splitlines()[0]})", where=path) from None
    return resolved


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
        first = problems[0]
        # The tag of a discriminated union is part of pydantic's location but not of the user's file.
        key = ".".join(str(part) for part in first["loc"]) or "top level"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(
            _describe(first) + more, where=f"{where}: {key}", remedy=_suggestion(schema, first["loc"])
        ) from None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like `word`, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return matches[0] if matches else None


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError("no such file", where=path, remedy="check the path")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ConfigError("larger than 1 MB", where=path, remedy="a recipe is a short text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("not a UTF-8 text file", where=path) from None
    if _has_alias(text):
        raise ConfigError("YAML anchors and aliases are not supported", where=path, remedy="write the value out")
    return text


def _has_alias(text: str) -> bool:
    # Nested aliases expand without bound ("billion laughs"); OmegaConf's own ${key} serves instead.
    import yaml

    return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))


def _describe(problem: Any) -> str:
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "unexpected key"
    if problem["type"] in ("missing", "missing_argument"):
        return "required key is missing"
    message: str = problem["msg"]
    message = message.removeprefix("Value error, ")
    return f"{message} (got {problem['input']!r})"[:300]


def _suggestion(schema: type[Any], location: tuple[int | str, ...]) -> str | None:
    import dataclasses

    owner: Any = schema
    for part in location[:-1]:
        hints = (
            {field.name: field.type for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else {}
        )
        owner = _inner_dataclass(hints.get(str(part)))
    if not dataclasses.is_dataclass(owner) or not location:
        return None
    names = [field.name for field in dataclasses.fields(owner)]
    if str(location[-1]) in names:
        return None
    guess = did_you_mean(str(location[-1]), names)
    return f"did you mean '{guess}'?" if guess else f"known keys: {', '.join(names)}"


def _inner_dataclass(annotation: Any) -> Any:
    import dataclasses
    from typing import get_args

    if dataclasses.is_dataclass(annotation):
        return annotation
    for argument in get_args(annotation):
        if dataclasses.is_dataclass(argument):
            return argument
    return None
