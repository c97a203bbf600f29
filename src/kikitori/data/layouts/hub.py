"""Data sets of the Hugging Face hub by their ids: the parquet files of a config, fetched into the hub's own cache.

Which files are a config's, and what their splits are called, the data set's card says; without a card that does, the
names of folders and files say it. Where the hub cannot be reached, what the cache has of the data set is read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from kikitori.data.layouts.base import Columns, LeaveOut, SourceRow
from kikitori.data.layouts.hugging_face import rows_of, split_of
from kikitori.errors import ConfigError, DataError, first_line
from kikitori.io.config import did_you_mean
from kikitori.io.extras import require
from kikitori.io.progress import note

CARD, NAME, DEFAULT = "README.md", "config_name", "default"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Fetched:
    """Parquet files of a data set in the cache with the names of their splits; a `Layout` of one data set."""

    files: tuple[tuple[Path, str | None], ...]
    commit: str

    def evidence(self, source: Path) -> str:  # noqa: ARG002
        """The commit that they are of."""
        return f"{self.commit[:8]} of the hub"

    def read(self, source: Path, columns: Columns, leave_out: LeaveOut) -> Iterator[SourceRow]:  # noqa: ARG002
        """Their rows.

        Raises:
            DataError: There is no column of audio, or a file is damaged.
        """
        for path, split in self.files:
            yield from rows_of(path, split, columns, leave_out)


def is_hub_id(source: Path) -> bool:
    """Whether a path may be the id of a data set, `OWNER/NAME`; where its folder is here, it is a path misspelt."""
    return _ID.fullmatch(source.as_posix()) is not None and not source.parent.exists()


def fetch(repo: str, *, config: str | None, revision: str | None, splits: Sequence[str]) -> Fetched:
    """Fetches some splits of a config, or all; what is in the cache is not fetched again.

    Args:
        repo: Id of the data set.
        config: One of its configs; None the only or the default one.
        revision: Branch, tag or commit; None the newest.
        splits: Names as the data set has them; all if none.

    Raises:
        ConfigError: The package `pyarrow` is not installed, or there is no such config or split.
        DataError: The data set cannot be fetched, is not in the cache in full, or has no parquet files.
    """
    folder = _snapshot(repo, revision, [CARD])  # first: what is no id at all needs no package
    require("pyarrow", "data sets of Hugging Face need", where=repo)
    names = _listed(repo, folder)
    chosen = choose_files(names, _configs(folder / CARD, repo), config, repo)
    known = dict.fromkeys(chosen.values())
    if missing := [split for split in splits if split not in known]:
        what, there = f"there is no split '{missing[0]}'", ", ".join(filter(None, known)) or "none"
        raise ConfigError(what, where=repo, remedy=f"it has {there}")
    wanted = {name: split for name, split in chosen.items() if not splits or split in splits}
    _check_whole([*wanted], repo)
    folder = _snapshot(repo, folder.name, [escape(name) for name in wanted])
    if lost := [name for name in wanted if not (folder / name).is_file()]:
        raise DataError(f"{lost[0]} was not fetched", where=repo, remedy="run the same command again")
    return Fetched(tuple((folder / name, split) for name, split in wanted.items()), folder.name)


def choose_files(
    names: Sequence[str], configs: Sequence[Mapping[str, Any]], config: str | None, where: str
) -> dict[str, str | None]:
    """The parquet files of a config, with the names of their splits.

    Args:
        names: Of all files of the data set.
        configs: What its card says of configs.
        config: The one that the user names.
        where: The data set.

    Raises:
        ConfigError: There is no such config, or several may be meant.
        DataError: It has no parquet files.
    """
    parquets = sorted(name for name in names if name.endswith(".parquet"))
    described = {str(each.get(NAME)): _patterns(each) for each in configs if _patterns(each)}
    folders = {name.split("/")[0] for name in parquets}
    if described:
        default = [str(each.get(NAME)) for each in configs if each.get(DEFAULT) is True]
        patterns = described[_chosen([*described], [*default, DEFAULT], config, where)]
    elif config is not None or (len(folders) > 1 and all(name.count("/") == 2 for name in parquets)):
        patterns = [(None, f"{_chosen(sorted(folders), [DEFAULT], config, where)}/**")]
    else:
        patterns = [(None, "**")]
    found: dict[str, str | None] = {}
    for split, pattern in patterns:
        found |= {name: split or split_of(PurePosixPath(name)) for name in parquets if _fits(name, pattern)}
    if not found:
        remedy = "try --revision refs/convert/parquet, or fetch it with hf download and give the folder"
        raise DataError("has no parquet files there", where=where, remedy=remedy)
    return found


def _chosen(names: Sequence[str], defaults: Sequence[str], config: str | None, where: str) -> str:
    if config is None:
        meant = [name for name in defaults if name in names] or names
        if len({*names}) == 1 or meant is not names:
            return meant[0]
        raise ConfigError(f"has {len(names)} configs", where=where, remedy=f"say --config: {', '.join(names)[:300]}")
    if config not in names:
        guess = did_you_mean(config, names)
        remedy = f"did you mean '{guess}'?" if guess else f"it has {', '.join(names)[:300] or 'none'}"
        raise ConfigError(f"there is no config '{config}'", where=where, remedy=remedy)
    return config


def _patterns(config: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """Splits and patterns of files that a card names for a config."""
    match config.get("data_files"):
        case str(pattern):
            return [(None, pattern)]
        case list(entries):
            return [pair for entry in entries for pair in _entry(entry)]
    folder = config.get("data_dir")
    return [(None, f"{folder.rstrip('/')}/**")] if isinstance(folder, str) else []


def _entry(entry: object) -> list[tuple[str | None, str]]:
    match entry:
        case str(pattern):
            return [(None, pattern)]
        case {"split": str(split), "path": str(pattern)}:
            return [(split, pattern)]
        case {"split": str(split), "path": list(patterns)}:
            return [(split, pattern) for pattern in patterns if isinstance(pattern, str)]
    return []


def _fits(name: str, pattern: str) -> bool:
    """Whether a file's name fits a pattern, in which `*` stays within a folder and `**` does not."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./"))
    return re.fullmatch("".join(_WILD.get(part) or re.escape(part) for part in parts), name) is not None


def _check_whole(names: Sequence[str], repo: str) -> None:
    """Refuses files of which others of their numbered row are missing, as in a cache that was filled in part.

    Raises:
        DataError: Such others are.
    """
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    for stem, count in {(shard["stem"], int(shard["count"])) for shard in shards}:
        there = sum(shard["stem"] == stem and int(shard["count"]) == count for shard in shards)
        if there < count:
            what = f"{there} of {count} files of {stem} are there"
            raise DataError(what, where=repo, remedy="run the same command again where the hub can be reached")


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[*patterns]))
    except Exception as error:  # what a network can raise has no end
        what = f"cannot be fetched from the hub ({first_line(error)})"
        raise DataError(what, where=repo, remedy="check the id and the network, or give a local folder") from error


def _listed(repo: str, folder: Path) -> list[str]:
    """The names of all files of a commit, or of those in the cache where the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(repo, repo_type="dataset", revision=folder.name)
    except Exception:  # noqa: BLE001  (the card was there, so the cache is another source)
        note(f"{repo}: the hub cannot be reached; what the cache has of it is read")
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _configs(card: Path, repo: str) -> list[Mapping[str, Any]]:
    """What a card says of configs; nothing if there is no card."""
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return []
    try:
        configs = DatasetCard.load(card).data.get("configs")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"its card cannot be read ({first_line(error)})", where=repo, remedy="name a revision"
        ) from None
    return [each for each in configs if isinstance(each, dict)] if isinstance(configs, list) else []
