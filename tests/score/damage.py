"""R2: a checkpoint with any file damaged in any way is found out, and the one before it is used."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kikitori.train.loop.checkpoint import find_damage, load_newest
from tests.score.row import Row
from tests.train.helpers import Toy, toy_trainer

Damage = Callable[[Path], None]
PLACES = 9


def count_damage(root: Path, *, every: int = 1) -> Row:
    """Damages each file of the newest checkpoint in each way; `every` takes a part of the variants."""
    trainer, _ = toy_trainer(Toy(dropout=0.3), root / "run", average_last=2, checkpoint_every=1)
    trainer.fit()
    checkpoints = root / "run" / "checkpoints"
    newest, previous = (checkpoints / f"checkpoint-{step:08d}" for step in (15, 14))
    before = _bytes(previous)
    kept = tries = 0
    variants = [(file.name, damage) for file in sorted(newest.iterdir()) for damage in _damages(file)]
    for name, damage in variants[::every]:
        good = root / "good"
        shutil.copytree(newest, good)
        damage(newest / name)
        damaged = _bytes(newest)
        path, _, lines = load_newest(checkpoints)
        found = find_damage(newest) is not None and path == previous and len(lines) == 1 and str(newest) in lines[0]
        # What is damaged is neither deleted nor touched, and what is sound stays so.
        kept += found and _bytes(newest) == damaged and _bytes(previous) == before
        tries += 1
        shutil.rmtree(newest)
        good.rename(newest)
    assert find_damage(newest) is None
    return Row("R2", "a damaged checkpoint is found out, named and kept, and the one before it is used", kept, tries)


def _damages(file: Path) -> Iterator[Damage]:
    size = file.stat().st_size
    yield Path.unlink
    yield lambda path: path.write_bytes(b"")
    yield lambda path: path.write_bytes(path.read_bytes() + b"\0")
    yield lambda path: path.write_bytes(bytes(path.stat().st_size))
    yield lambda path: path.rename(path.with_name("renamed"))
    for place in range(PLACES):
        offset = place * (size - 1) // (PLACES - 1)
        yield lambda path, at=offset: path.write_bytes(path.read_bytes()[:at])
        yield lambda path, at=offset, bit=place % 8: _flip(path, at, bit)


def _flip(path: Path, offset: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
