"""What the frozen part of an encoder says of training speech, computed once and kept on disk.

A folder holds `key.json` (what the states depend on), `states.f16` (all of them, one behind the other) and
`index.jsonl` (a line for each utterance). Lines come last, so that a run that is killed loses no more than the
utterance that it was writing; states whose checksum is wrong are computed anew.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kikitori.errors import ConfigError, TrainingError
from kikitori.io.files import write_text
from kikitori.types import Utterance

KEY, INDEX, STATES = "key.json", "index.jsonl", "states.f16"


@dataclass(frozen=True)
class CachedRow:
    """Where the states of an utterance are.

    Attributes:
        name: Of the utterance, see `row_name`.
        offset: Bytes before them.
        frames: States, each of the encoder's size.
        samples: Of the waveform that the encoder read.
        checksum: CRC-32 of their bytes.
    """

    name: str
    offset: int
    frames: int
    samples: int
    checksum: int


class EncoderCache:
    """States of utterances, (frames, dim) each, as 16-bit floating-point numbers.

    Args:
        folder: Its folder, made if need be; one process writes to it at a time.
        dim: Size of a state.
        key: What all states depend on: encoder, layers, window, augmentation.

    Raises:
        ConfigError: The folder holds states of another encoder, window or augmentation.
    """

    def __init__(self, folder: Path, dim: int, key: Mapping[str, Any]) -> None:
        self.folder, self.dim = folder, dim
        wanted = json.loads(json.dumps({"format": 1, "dim": dim, **key}))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / KEY).is_file():
            found = _read_json(folder / KEY)
            if different := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
                raise ConfigError(
                    f"{folder} holds outputs of another encoder or augmentation ({', '.join(different)})",
                    where="encoder.cache",
                    remedy="name another folder, or delete this one",
                )
        else:
            write_text(folder / KEY, json.dumps(wanted, indent=1) + "\n")
        for name in (INDEX, STATES):
            (folder / name).touch()
        self._rows = self._read_index()

    def samples(self, name: str) -> int | None:
        """Samples of the waveform behind an utterance's states; None if it has none."""
        row = self._rows.get(name)
        return None if row is None else row.samples

    def read(self, name: str) -> Tensor | None:
        """The states of an utterance, (frames, dim) float32; None if they are missing or damaged."""
        if (row := self._rows.get(name)) is None:
            return None
        with (self.folder / STATES).open("rb") as file:
            file.seek(row.offset)
            content = file.read(2 * row.frames * self.dim)
        if zlib.crc32(content) != row.checksum:
            del self._rows[name]
            return None
        numbers = np.frombuffer(content, np.float16).astype(np.float32)
        return torch.from_numpy(numbers).reshape(row.frames, self.dim)

    def write(self, name: str, states: Tensor, samples: int) -> Tensor:
        """Keep the states (frames, dim) of an utterance; gives them as they will be read.

        Raises:
            TrainingError: They are larger than 16 bits can say, or the disk refuses.
        """
        numbers = states.detach().to("cpu", torch.float16)
        if not bool(numbers.isfinite().all()):
            what = "an encoder output is larger than 16 bits can say"
            raise TrainingError(what, where="encoder.cache", remedy="train without encoder.cache")
        content = numbers.contiguous().numpy().tobytes()
        try:
            with (self.folder / STATES).open("ab") as file:
                row = CachedRow(name, file.tell(), len(numbers), samples, zlib.crc32(content))
                file.write(content)
            with (self.folder / INDEX).open("a", encoding="utf-8") as index:
                index.write(json.dumps(asdict(row)) + "\n")
        except OSError as error:
            raise TrainingError(
                f"cannot be written: {error.strerror}", where=self.folder, remedy="free some space"
            ) from error
        self._rows[name] = row
        return numbers.float()

    def _read_index(self) -> dict[str, CachedRow]:
        rows, size = {}, (self.folder / STATES).stat().st_size
        content = (self.folder / INDEX).read_text(encoding="utf-8", errors="replace")
        for line in content.splitlines():
            try:
                row = CachedRow(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a run that was killed
            if row.offset + 2 * row.frames * self.dim <= size:
                rows[row.name] = row
        if content and not content.endswith("\n"):
            with (self.folder / INDEX).open("a", encoding="utf-8") as index:
                index.write("\n")
        return rows


def row_name(utterance: Utterance, copy: int | None) -> str:
    """The name of an utterance's states: its audio file as it is now, the place in it, and which augmented copy.

    Args:
        utterance: The utterance.
        copy: Number of the augmented copy; None for the speech as it was recorded.
    """
    stat = utterance.audio_filepath.stat()
    place = [utterance.utt_id, stat.st_size, stat.st_mtime_ns, utterance.offset, utterance.duration, copy]
    place += utterance.byte_range or ()
    return hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} cannot be read", where="encoder.cache", remedy="delete the folder")
    return values
