"""Where a run comes from: recipe, data, versions and commit, as run folders and checkpoints keep them."""

import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

from kikitori.train.recipe.base import TrainingRecipe
from kikitori.train.recipe.legacy import renamed, without_retired

PACKAGES = ("kikitori", "torch", "transformers", "peft", "safetensors", "tokenizers", "sentencepiece", "numpy", "soxr")


def provenance(recipe: TrainingRecipe, data_digest: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """What checkpoints say of where they come from; `counts` are of the data, by what they are."""
    # By way of JSON, so that what was written equals what will be read.
    values = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return {"recipe": values, "data": data_digest, "counts": dict(counts), "environment": environment()}


def environment() -> dict[str, Any]:
    """Where a run takes place: versions, machine, the commit of the current folder, and how it was called."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "git": _git_commit(),
        "argv": sys.argv,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def digest(rows: Iterable[object]) -> str:
    """SHA-256 of rows that JSON can write, in their order."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed since a checkpoint was written that its run depends on, a line each."""
    lines = []
    if then.get("data") != now.get("data"):
        lines.append("the training data are not those of the checkpoint; the result will not be an uninterrupted run's")
    for name in ("recipe", "environment"):
        before, after = (dict(_flat(where, name)) for where in (_comparable(then, now, name), now.get(name, {})))
        for key in sorted(before.keys() | after.keys()):
            relevant = name == "recipe" or key.startswith("environment.versions.")
            if relevant and before.get(key) != after.get(key):
                lines.append(f"{key} is {after.get(key)}, and was {before.get(key)} in the checkpoint")
    return lines


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two runs that should be one differ: data, recipe or versions, a line each."""
    lines = [f"{what} differ" for what in ("data", "frozen weights") if one.get(what) != other.get(what)]
    for name in ("recipe", "environment"):
        before, after = (dict(_flat(side.get(name, {}), name)) for side in (one, other))
        for key in sorted(before.keys() | after.keys()):
            relevant = name == "recipe" or key.startswith("environment.versions.")
            if relevant and before.get(key) != after.get(key):
                lines.append(f"{key} is {before.get(key)} and {after.get(key)}")
    return lines


def _comparable(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an earlier provenance; a recipe under today's names, without sections that its task no longer has."""
    values: Mapping[str, Any] = then.get(name, {})
    if name != "recipe":
        return values
    values = without_retired(renamed(values))
    return {key: value for key, value in values.items() if key in now.get(name, {})}


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, name)
        else:
            yield name, value


def _git_commit() -> str | None:
    """Commit of the current folder, with `-dirty` behind it if tracked files differ; None outside of git."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
