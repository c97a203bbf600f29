"""Which recordings the arguments of a command name, and what their transcripts are called."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kikitori.io.writers import unique_stems

ENDINGS = frozenset(
    (
        *(".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".caf", ".flac", ".sph", ".nist"),
        *(".mp3", ".ogg", ".oga", ".opus", ".aac", ".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".mka", ".mkv", ".webm"),
    )
)
"""Of the files that are read in a folder; a file that is named itself may have any."""


@dataclass(frozen=True)
class Recording:
    """A recording and the name of its transcripts: their path in the folder for them, without a suffix."""

    audio: Path
    name: str


def find_recordings(paths: Sequence[Path]) -> list[Recording]:
    """The recordings that paths name: files as they are; folders stand for the recordings anywhere below them.

    Transcripts lie in their folder as recordings lie in the folder that was named; of those with the same name the
    later ones get a number. Hidden files and folders are left out, and links to folders are not followed. A folder
    without recordings, or one that cannot be listed, stands for itself, as a recording that cannot be read.
    """
    found = [pair for path in paths for pair in (_below(path) if path.is_dir() else [(path, Path(path.name))])]
    by_folder: dict[Path, list[int]] = {}
    for number, (_, place) in enumerate(found):
        by_folder.setdefault(place.parent, []).append(number)
    names = [""] * len(found)
    for folder, numbers in by_folder.items():
        stems = unique_stems([found[number][1] for number in numbers])
        for number, stem in zip(numbers, stems, strict=True):
            names[number] = (folder / stem).as_posix()
    return [Recording(audio, name) for (audio, _), name in zip(found, names, strict=True)]


def _below(folder: Path) -> list[tuple[Path, Path]]:
    """Recordings below a folder, and their paths from there."""
    found: list[tuple[Path, Path]] = []

    def unreadable(error: OSError) -> None:
        found.append((Path(error.filename), Path(error.filename).relative_to(folder.parent)))

    for place, below, names in os.walk(folder, onerror=unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        found += [(file, file.relative_to(folder)) for file in files if file.suffix.lower() in ENDINGS]
    return found or [(folder, Path(folder.name))]
