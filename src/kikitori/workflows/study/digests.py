"""What a training or a decoding depends on, as one digest: its options and the content of the files that they name."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import kikitori
from kikitori.data.layouts.index import shards_digest
from kikitori.workflows.sharing.journal import file_digest, recipe_digest

LENGTH = 12
"""Characters of a digest, which names a folder."""
_PLACES = ("data_root", "cache")
"""Keys whose folders change nothing about the result by what lies in them."""
_CONFIG = "config.json"
_SMALL = 1 << 20  # bytes of files of model folders that are read; of weights names and sizes count


def changed(options: Any) -> Any:
    """Options as plain values, without those that are as by default: what a later version adds changes no digest."""
    match options:
        case _ if is_dataclass(options):
            known = vars(type(options))["__pydantic_fields__"]
            values = {name: (getattr(options, name), field) for name, field in known.items()}
            return {
                name: changed(value)
                for name, (value, field) in values.items()
                if value != field.get_default(call_default_factory=True)
            }
        case dict():
            return {str(key): changed(value) for key, value in options.items()}
        case list() | tuple():
            return [*map(changed, options)]
    return options


def digest_of(values: Mapping[str, Any], root: Path) -> str:
    """The digest of options: of their values, of the files they name (from `root` or from here), of our version."""
    named = {text: found for text in _texts(values) for found in (_content(root / text), _content(Path(text))) if found}
    return recipe_digest({"options": values, "files": named, "kikitori": kikitori.__version__})[:LENGTH]


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, member in value.items():
                if key not in _PLACES:
                    yield from _texts(member)
        case list() | tuple():
            for member in value:
                yield from _texts(member)


def _content(path: Path) -> str | None:
    """Of a file, a model folder or the run that exported it, or a data set in shards; None of what is none of these."""
    try:
        if path.is_file():
            return file_digest(path)
        folder = next((each for each in (path, path / "model") if (each / _CONFIG).is_file()), None)
        if folder is None:
            return shards_digest(path)
    except (OSError, ValueError):  # the text is no path
        return None
    return _folder_digest(folder)


def _folder_digest(folder: Path) -> str:
    content = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            size = file.stat().st_size
            content.update(f"{file.name} {size} {file_digest(file) if size <= _SMALL else ''}\n".encode())
    return content.hexdigest()
