"""Data sets in shards as they are: a manifest of rows whose audio stays inside them, made once and kept.

It lies in the user's cache under a name that depends on the names, sizes and times of the shards, and is never stale.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from kikitori.data.convert import convert
from kikitori.data.layouts.base import Columns, Layout
from kikitori.data.layouts.choose import choose_layout
from kikitori.data.layouts.keep import InPlace
from kikitori.data.layouts.tars import is_tar
from kikitori.errors import ConfigError, DataError, counted
from kikitori.io.files import describe_folder, disk_error, write_text

IN_SHARDS = ("webdataset", "lhotse", "hugging-face")
_FORMAT = 1
_SHARDS = (".tar", ".jsonl", ".gz", ".tgz", ".arrow")
_COPY = "copy it too, or number the shards without a gap"
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<of>-of-(?P<count>\d+))?(?P<after>\.[A-Za-z.]+)")


def is_sharded(source: Path) -> bool:
    """Whether a path is that of a data set rather than of a manifest: a folder, or a tar."""
    return source.is_dir() or is_tar(source)


def index(source: Path, log: Callable[[str], None]) -> tuple[Path, tuple[str, ...]]:
    """The manifest of a data set in shards, and what is left out of it and why.

    Raises:
        DataError: It is no such data set, a shard is missing, cut, damaged or compressed, or the disk refuses.
    """
    if (known := _layout(source)) is None:
        found, remedy = describe_folder(source)
        raise DataError(f"is no manifest: it {found}", where=source, remedy=remedy)
    (name, layout), files = known, _files(source)
    _refuse_gaps(files, log)
    manifest = _kept_as(source, files)
    problems, lock = manifest.with_suffix(".txt"), manifest.with_suffix(".lock")
    try:
        if not problems.exists():  # which is written last; what is there may lie in a folder that refuses files
            manifest.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()  # FileLock takes a folder that refuses files for one that is locked
            with FileLock(lock):  # the other processes of a run wait
                if not problems.exists():
                    log(f"{source}: reading where its rows are ({name}, {counted(len(files), 'file')})")
                    lines = list[str]()
                    rows = layout.read(source, Columns(), lines.append)
                    convert(rows, manifest, keeper=InPlace(), leave_out=lines.append)
                    write_text(problems, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise disk_error(manifest.parent, error) from error
    return manifest, tuple(problems.read_text(encoding="utf-8").splitlines())


def shards_digest(source: Path) -> str | None:
    """A digest of the names, sizes and times of the files of a data set in shards; None of what is none."""
    if not is_sharded(source) or _layout(source) is None:
        return None
    return hashlib.sha256(json.dumps(_known(source, _files(source))).encode()).hexdigest()


def _layout(source: Path) -> tuple[str, Layout] | None:
    """The layout of a data set in shards."""
    try:
        name, _, layout = choose_layout(source, None)
    except (ConfigError, DataError):  # whose remedies are options of `kikitori data convert`
        return None
    return (name, layout) if name in IN_SHARDS else None


def _files(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]


def _known(source: Path, files: list[Path]) -> list[tuple[str, int, int]]:
    return [(str(path.relative_to(source)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _kept_as(source: Path, files: list[Path]) -> Path:
    content = json.dumps([_FORMAT, str(source.resolve()), _known(source, files)])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kikitori" / "shards" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.jsonl"


def _refuse_gaps(files: list[Path], log: Callable[[str], None]) -> None:
    """Refuses shards of which one is missing, by their numbers.

    Where most numbers are missing they count something else, such as samples, or name speakers, or a few shards were
    chosen: that is said.
    """
    numbered = defaultdict[tuple[Path, str, str, str], dict[int, str]](dict)
    for path in files:
        if path.name.endswith(_SHARDS) and (found := _NUMBERED.fullmatch(path.name)):
            key = (path.parent, found["before"], found["of"] or "", found["after"])
            numbered[key][int(found["number"])] = found["number"]
    for (folder, before, of, after), numbers in numbered.items():
        first, last = min(numbers), max(numbers)
        if of:
            count = int(of.removeprefix("-of-"))
            first, last = (0, count - 1) if first == 0 else (1, count)
        elif 2 * len(numbers) <= last - first:
            there = f"{len(numbers)} of the numbers {first} to {last} are there, and read"
            log(f"warning: {folder / before}*{after}: {there}")
            continue
        for number in range(first, last + 1):
            if number not in numbers:
                width = len(next(iter(numbers.values())))
                missing = folder / f"{before}{number:0{width}}{of}{after}"
                raise DataError("this shard is missing, and others of its row are there", where=missing, remedy=_COPY)
