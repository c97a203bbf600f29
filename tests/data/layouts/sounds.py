"""Audio files for data sets in other layouts, and what their readers give."""

import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile as sf

from kikitori.data.layouts.base import Columns, SourceRow
from kikitori.data.layouts.choose import LAYOUTS


def sound(seconds: float = 0.5, kind: str = "FLAC", seed: int = 0, channels: int = 1) -> bytes:
    """The bytes of an audio file."""
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (round(16_000 * seconds), channels)).astype(np.float32)
    out = io.BytesIO()
    sf.write(out, noise, 16_000, format=kind)
    return out.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """Writes a file into folders that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tar(path: Path, files: dict[str, bytes]) -> None:
    """Writes a tar of files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def read(layout: str, source: Path, columns: Columns = Columns()) -> tuple[list[SourceRow], list[str]]:  # noqa: B008
    """The rows of a data set, and what is said of those that are left out."""
    left_out: list[str] = []
    assert LAYOUTS[layout].evidence(source)
    return list(LAYOUTS[layout].read(source, columns, left_out.append)), left_out
