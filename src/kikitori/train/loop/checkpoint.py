"""Checkpoints that survive a kill: staged, synced to disk, hashed, then renamed into place.

A checkpoint is a folder of safetensors and JSON (never pickle) with `manifest.json`, which names the SHA-256 of every
other file. Resuming takes the newest checkpoint whose manifest is true; nothing of the others is read.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from kikitori.errors import TrainingError
from kikitori.io.files import DiskFullError
from kikitori.train.parallel import processes
from kikitori.train.parallel.shards import Empty, Weights, fitted, read_shards, whole, write_shards

PREFIX, STAGING, REPLACED = "checkpoint-", ".staging-", ".replaced"
FORMAT = 4
"""Version of the layout; a checkpoint says its own in `state.json`. Format 3 has the first process's `sums` alone."""
SPARE_BYTES = 2**20
"""For JSON, headers and folders, beside the tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder: tensors by file name, and a JSON state."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    directory: Path, step: int, content: Checkpoint, *, keep: int, shards: Mapping[str, Weights] | None = None
) -> Path:
    """Writes `directory/checkpoint-STEP` and deletes all but the newest `keep` checkpoints up to this step.

    Checkpoints of later steps are damaged ones that resuming passed over; they stay until training is there again.
    `shards` are groups of tensors of which each process writes its piece: the others call `add_shards` with theirs.

    Raises:
        TrainingError: The disk refuses; earlier checkpoints stay as they were.
    """
    final = directory / f"{PREFIX}{step:08d}"
    staging = directory / f"{STAGING}{step:08d}"
    replaced = final.with_name(f"{final.name}{REPLACED}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob(f"{STAGING}*"):
            shutil.rmtree(left_over)
        groups = [*content.tensors.values(), *(shards or {}).values()]
        check_space(directory, sum(tensor.nbytes for group in groups for tensor in group.values()))
        staging.mkdir()
        for name, tensors in content.tensors.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, staging / f"{name}.safetensors")
        state = {"format": FORMAT, **content.state}
        (staging / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        digests = {path.name: _sha256(path) for path in sorted(staging.iterdir())}
        if shards is not None:
            digests |= write_shards(staging, shards)
        (staging / "manifest.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")
        for path in [*staging.rglob("*"), staging]:
            _sync(path)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        staging.rename(final)
        _sync(directory)
        shutil.rmtree(replaced, ignore_errors=True)
        for old in [path for path in list_checkpoints(directory) if _step(path) <= step][:-keep]:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        if replaced.exists() and not final.exists():
            with contextlib.suppress(OSError):
                replaced.rename(final)
        raise TrainingError(
            f"the checkpoint could not be written ({getattr(error, 'strerror', None) or error})",
            where=final,
            remedy="free the disk and go on with --resume",
        ) from None
    return final


def add_shards(directory: Path, step: int, shards: Mapping[str, Weights]) -> None:
    """What every process but the first does while that one is in `save_checkpoint`.

    Raises:
        TrainingError: The disk of a process refuses.
    """
    staging = directory / f"{STAGING}{step:08d}"
    try:
        write_shards(staging, shards)
    except OSError as error:
        raise TrainingError(f"the checkpoint could not be written ({error})", where=staging) from None


class NoSpaceError(TrainingError, DiskFullError):
    """The disk has no room for a checkpoint: further runs there, such as those of a study, would end as well."""


def check_space(directory: Path, num_bytes: int) -> None:
    """Checks that a folder's disk takes so many bytes of tensors.

    Raises:
        NoSpaceError: It does not.
    """
    free = shutil.disk_usage(directory).free
    if free < num_bytes + SPARE_BYTES:
        raise NoSpaceError(
            f"a checkpoint needs {_megabytes(num_bytes + SPARE_BYTES)}, the disk has {_megabytes(free)} left",
            where=directory,
            remedy="free the disk and go on with --resume; earlier checkpoints are as they were",
        )


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first; one that was being replaced when the run was killed comes before its like."""
    found = [path for path in directory.glob(f"{PREFIX}*") if path.is_dir() and _step(path) >= 0]
    return sorted(found, key=lambda path: (_step(path), path.suffix != REPLACED))


def load_newest(
    directory: Path, *, weights_only: bool = False, empty: Empty = whole
) -> tuple[Path, Checkpoint, list[str]]:
    """The newest undamaged checkpoint of a folder, and a line for each damaged one that was passed over.

    `weights_only` is content with weights and position: damage to the rest does not matter, and it is not read. `empty`
    makes room for tensors that several processes have written.

    Raises:
        TrainingError: There is none, or a newer kikitori wrote it.
    """
    path, damaged = find_newest(directory, weights_only=weights_only)
    return path, read_checkpoint(path, weights_only=weights_only, empty=empty), damaged


def find_newest(directory: Path, *, weights_only: bool = False) -> tuple[Path, list[str]]:
    """As `load_newest`, without reading it.

    Raises:
        TrainingError: There is none.
    """
    damaged: list[str] = []
    for path in reversed(list_checkpoints(directory)):
        problem = find_damage(path, weights_only=weights_only)
        if problem is None:
            return path, damaged
        damaged.append(f"{path}: {problem}; passed over, and kept until training gets there again")
    what = "no checkpoint" if not damaged else f"no undamaged checkpoint ({damaged[0]})"
    remedy = "try --weights-only, or start" if damaged and not weights_only else "start"
    raise TrainingError(what, where=directory, remedy=f"{remedy} without --resume in a new folder")


def find_damage(path: Path, *, weights_only: bool = False) -> str | None:
    """What is wrong with a checkpoint folder, or with its weights and position alone; None if nothing is."""
    try:
        digests: Mapping[str, str] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
        present.remove("manifest.json")
        wanted = {"state.json", *_files(digests, "model")}
        if not weights_only:
            wanted |= {*digests, *_files(digests, "optimizer")}
        missing = sorted(wanted - present)
        if missing:
            return f"{missing[0]} is missing"
        foreign = sorted(present - set(digests))
        if foreign and not weights_only:
            return f"{foreign[0]} does not belong to it"
        for name in wanted if weights_only else digests:
            if _sha256(path / name) != digests[name]:
                return f"{name} is damaged"
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        return f"it cannot be read ({error})"
    return None


def read_checkpoint(path: Path, *, weights_only: bool = False, empty: Empty = whole) -> Checkpoint:
    """Contents of a checkpoint whose digests are true.

    Raises:
        TrainingError: Another version wrote it.
    """
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    version = state.get("format", 1)
    if version not in {3, FORMAT}:
        age = "a newer" if version > FORMAT else "an older"
        raise TrainingError(
            f"{age} kikitori wrote it (format {version}, this one reads {FORMAT})",
            where=path,
            remedy="go on with that version, or start another run from this one's model (init)",
        )
    if version == 3:
        state["sums"] = [state["sums"]]
    groups = [*path.glob("*.safetensors"), *(folder for folder in path.iterdir() if folder.is_dir())]
    chosen = sorted(group for group in groups if group.stem == "model" or not weights_only)
    tensors = {group.stem: read_shards(group, empty) if group.is_dir() else load_file(group) for group in chosen}
    return Checkpoint(tensors, state)


def _files(digests: Mapping[str, str], group: str) -> list[str]:
    """The files of a group of tensors: the pieces of several processes, or one."""
    return [name for name in digests if name.startswith(f"{group}/")] or [f"{group}.safetensors"]


def optimizer_tensors(optimizer: AdamW, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `parameter|exp_avg` and so on."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def restore_optimizer(optimizer: AdamW, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave.

    Raises:
        TrainingError: The state names a parameter that the module does not have.
    """
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        name, _, slot = key.partition("|")
        if name not in parameters:
            raise TrainingError(f"the optimizer state names an unknown parameter {name}", remedy="use the same recipe")
        parameter = parameters[name]
        # AdamW keeps its step counter where it was created; the averages follow the parameter.
        own = value.clone() if slot == "step" else fitted(value, parameter).to(parameter.device)
        optimizer.state[parameter][slot] = own


def random_states() -> tuple[dict[str, Tensor], list[Any]]:
    """States of the generators of all processes: torch's by name and rank, and numpy's, which JSON can write."""
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = np.random.get_state()
    states = processes.gather((generators, [kind, [int(key) for key in np.asarray(keys)], *rest]))
    named = {f"{name}{rank}": state for rank, (own, _) in enumerate(states) for name, state in own.items()}
    return named, [state for _, state in states]


def restore_random(checkpoint: Checkpoint, rank: int) -> None:
    """Puts back the generators of a process; more processes than before start afresh."""
    tensors, numpy_states = checkpoint.tensors["random"], checkpoint.state["numpy"]
    if rank >= len(numpy_states):
        return
    torch.set_rng_state(tensors[f"cpu{rank}"])
    if f"cuda{rank}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"cuda{rank}"])
    kind, keys, *rest = numpy_states[rank]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))


def _step(path: Path) -> int:
    """The step in a checkpoint folder's name, or -1."""
    number = path.name.removeprefix(PREFIX).removesuffix(REPLACED)
    return int(number) if number.isdecimal() else -1


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MB"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
