"""A model's default decoding config: the `decoding.yaml` of its folder, whose external models lie in the same folder.

Whoever writes a model folder does not choose what else is read: a name that leads out of the folder, or to the hub, is
refused here. On the command line and from Python any may be named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from kikitori.errors import ModelError
from kikitori.io.config import merge_yaml
from kikitori.io.model_folder import DECODING, DRAFT, resolve, settings_file
from kikitori.search.old_options import INNER
from kikitori.search.options import (
    SEARCHES,
    CascadeSearch,
    Decoding,
    DraftSearch,
    GreedySearch,
    JointSearch,
    VLLMSearch,
    as_draft_search,
    load_decoding,
    with_overrides,
)

Search = TypeVar("Search", bound=Decoding)


def named_search(name_or_yaml: str, folder: Path | None, overrides: Sequence[str] = ()) -> Decoding:
    """The search that a name or a YAML file stands for, with overrides such as `decoding.max_labels=50` applied.

    The name of the model folder's own search means that, with the options of `decoding.yaml`, and so does that of the
    second search of its cascade; any other name the defaults of its search. A YAML file means what it says.

    Raises:
        ConfigError: No such search or file, or an option that does not fit.
        ModelError: The folder's own search is meant, and names what is not in the folder.
    """
    # Whatever else its file says does not matter to other searches, which are the way out where it is wrong.
    if folder is not None and name_or_yaml in SEARCHES and name_or_yaml in _own_names(folder):
        own = default_search(folder)
        if isinstance(own, CascadeSearch) and own.search != name_or_yaml:
            return with_overrides(own.second, overrides)
        assert own is not None  # noqa: S101
        return with_overrides(own, overrides)
    return load_decoding(name_or_yaml, overrides)


def default_search(folder: Path) -> Decoding | None:
    """The search of a model folder, None where it has no `decoding.yaml`.

    Raises:
        ConfigError: The file is no search.
        ModelError: It names what is not in the folder, or the folder holds what is no plain file.
    """
    file = settings_file(folder, DECODING)
    return None if file is None else within(folder, load_decoding(file), DECODING)


def default_draft_search(folder: Path | None) -> DraftSearch:
    """The search of a model folder whose drafts its LLM reads beside the speech (`SpeechLLMConfig.show_draft`).

    Raises:
        ConfigError: The file is no search.
        ModelError: There is none, it names what is not in the folder, or it is a search that makes no drafts.
    """
    file = None if folder is None else settings_file(folder, DRAFT)
    if folder is None or file is None:
        raise ModelError(f"the LLM reads drafts, and there is no {DRAFT}", where=folder, remedy="copy the folder again")
    options = within(folder, load_decoding(file), DRAFT)
    if (search := as_draft_search(options)) is None:
        what = f"'{options.search}' makes no drafts"
        raise ModelError(what, where=file, remedy="use lexicon, ctc_beam or ctc_greedy")
    return search


def within(folder: Path, options: Search, name: str) -> Search:
    """A search, held by a file of the given name, with the paths that it names taken from a folder.

    Raises:
        ModelError: One leads out of the folder, or to nothing; or the search sends the speech to a server.
    """
    match options:
        case VLLMSearch():
            raise ModelError("a model folder names no server", where=folder / name, remedy="name it with --decoding")
    changes: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "scorers":
            paths = {key: scorer.path and str(resolve(folder, scorer.path, name)) for key, scorer in value.items()}
            changes[field.name] = {key: replace(scorer, path=paths[key]) for key, scorer in value.items()}
        elif field.name in INNER and value is not None:
            changes[field.name] = within(folder, value, name)
    return replace(options, **changes)


def _own_names(folder: Path) -> list[object]:
    """The names of a folder's search, and of the second of a cascade."""
    if (file := settings_file(folder, DECODING)) is None:
        return []
    values = merge_yaml(file)
    names, second = [values.get("search", GreedySearch.search)], values.get("second")
    return [*names, second.get("search", JointSearch.search)] if isinstance(second, Mapping) else names
