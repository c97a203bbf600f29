import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.loop import checkpoint
from kikitori.train.loop.checkpoint import (
    Checkpoint,
    NoSpaceError,
    find_damage,
    list_checkpoints,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from kikitori.train.loop.optim import build_optimizer
from kikitori.train.recipe.optim import Optim

FILES = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "manifest.json")


def content(step):
    tensors = {
        "model": {"w": torch.full((64,), float(step)), "empty": torch.zeros(0)},
        "optimizer": {"w|step": torch.tensor(float(step))},
        "random": {"cpu0": torch.arange(8, dtype=torch.uint8)},
    }
    return Checkpoint(tensors, {"step": step, "name": "é"})


def save(directory, *steps, keep=9):
    for step in steps:
        save_checkpoint(directory, step, content(step), keep=keep)


def tree(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, 3, 12)
    path, loaded, damaged = load_newest(tmp_path)
    assert path == tmp_path / "checkpoint-00000012"
    assert not damaged
    assert loaded.state == {**content(12).state, "format": 4}
    assert {name: set(tensors) for name, tensors in loaded.tensors.items()} == {
        name: set(tensors) for name, tensors in content(12).tensors.items()
    }
    assert torch.equal(loaded.tensors["model"]["w"], content(12).tensors["model"]["w"])
    assert not list(tmp_path.glob(".*"))


def test_only_the_newest_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 20, 100, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000020", "checkpoint-00000100"]


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink], ids=["truncated", "flipped", "deleted"])
@pytest.mark.parametrize("file", FILES)
def test_damage_is_found_named_and_kept(tmp_path, file, damage):
    save(tmp_path, 1, 2)
    newest = tmp_path / "checkpoint-00000002"
    damage(newest / file)
    before = tree(tmp_path)
    path, loaded, damaged = load_newest(tmp_path)
    assert path.name == "checkpoint-00000001"
    assert loaded.state["step"] == 1
    assert len(damaged) == 1
    assert str(newest) in damaged[0]
    assert tree(tmp_path) == before


@pytest.mark.parametrize("file", FILES)
def test_flipped_bits_are_found_wherever_they_are(tmp_path, file):
    save(tmp_path, 1)
    path = tmp_path / "checkpoint-00000001" / file
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 30)):
        bit = place % 8
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << bit)]) + good[place + 1 :])
        assert find_damage(path.parent) is not None, (place, bit)
    path.write_bytes(good)
    assert find_damage(path.parent) is None


@pytest.mark.parametrize("manifest", ["[]", "3", "null", '{"state.json": 1}', "{", '"model.safetensors"'])
def test_an_odd_manifest_is_damage(tmp_path, manifest):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-00000001" / "manifest.json").write_text(manifest)
    assert find_damage(tmp_path / "checkpoint-00000001") is not None


def test_a_foreign_file_is_damage(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-00000001" / "notes.txt").write_text("mine")
    assert find_damage(tmp_path / "checkpoint-00000001") == "notes.txt does not belong to it"


@pytest.mark.parametrize("file", FILES)
def test_weights_alone_need_less(tmp_path, file):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoint-00000002" / file).unlink()
    path, loaded, damaged = load_newest(tmp_path, weights_only=True)
    enough = file in ("optimizer.safetensors", "random.safetensors")
    assert path.name == ("checkpoint-00000002" if enough else "checkpoint-00000001")
    assert set(loaded.tensors) == {"model"}
    assert len(damaged) == (0 if enough else 1)


@pytest.mark.parametrize(("version", "age"), [(5, "a newer"), (2, "an older")])
def test_other_formats_are_refused_by_name(tmp_path, monkeypatch, version, age):
    monkeypatch.setattr(checkpoint, "FORMAT", version)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match=rf"{age} kikitori wrote it \(format {version}, this one reads 4\)"):
        load_newest(tmp_path)


def test_format_3_has_the_sums_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    save_checkpoint(tmp_path, 1, Checkpoint(content(1).tensors, {"sums": {"loss": 2.0}}), keep=1)
    monkeypatch.undo()
    assert load_newest(tmp_path)[1].state == {"sums": [{"loss": 2.0}], "format": 3}


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    before = tree(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoSpaceError, match=r"a checkpoint needs 1 MB, the disk has 1 MB left; free the disk"):
        save(tmp_path, 2)
    assert tree(tmp_path) == before


def test_without_an_undamaged_checkpoint_there_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_newest(tmp_path)
    save(tmp_path, 1)
    truncate(tmp_path / "checkpoint-00000001" / "state.json")
    with pytest.raises(TrainingError, match=r"no undamaged checkpoint .*state\.json is damaged"):
        load_newest(tmp_path)


def test_a_damaged_checkpoint_does_not_push_out_sound_ones(tmp_path):
    save(tmp_path, 10, 20)
    truncate(tmp_path / "checkpoint-00000020" / "model.safetensors")
    save(tmp_path, 12, keep=1)  # training went on from step 10
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000012", "checkpoint-00000020"]
    assert load_newest(tmp_path)[0].name == "checkpoint-00000012"
    save(tmp_path, 20, keep=1)  # and got there again
    assert load_newest(tmp_path)[0].name == "checkpoint-00000020"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000020"]


def test_folders_with_other_names_are_left_alone(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "checkpoint-00000001", tmp_path / "checkpoint-mine")
    (tmp_path / ".staging-00000007").mkdir()  # of a run that was killed
    save(tmp_path, 2, 3, keep=1)
    assert load_newest(tmp_path)[0].name == "checkpoint-00000003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000003", "checkpoint-mine"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoint-00000005").rename(tmp_path / "checkpoint-00000005.replaced")
    path, loaded, _ = load_newest(tmp_path)
    assert path.name == "checkpoint-00000005.replaced"
    assert loaded.state["step"] == 5
    save(tmp_path, 5, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "checkpoint-00000005"
    assert load_newest(tmp_path)[0].name == "checkpoint-00000005"
    save(tmp_path, 6, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000006"]


FULL = OSError(28, "No space left on device")


def refusing(real, after, error=FULL):
    """A disk operation that works so many times and then no more."""
    calls = 0

    def refuse(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return real(*args, **kwargs)

    return refuse


@pytest.mark.parametrize("step", [2, 3], ids=["the same step again", "the next step"])
@pytest.mark.parametrize(
    ("owner", "call", "after", "error"),
    [
        (os, "fsync", 0, FULL),
        (os, "fsync", 3, FULL),
        (checkpoint, "save_file", 1, FULL),
        (checkpoint, "save_file", 2, SafetensorError("I/O error: No space left on device")),
        (Path, "mkdir", 1, FULL),
        (Path, "write_text", 1, FULL),
        (Path, "rename", 0, FULL),
    ],
)
def test_a_refusing_disk_leaves_everything_as_it_was(tmp_path, monkeypatch, owner, call, after, error, step):
    save(tmp_path, 1, 2)
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refusing(getattr(owner, call), after, error))
        with pytest.raises(TrainingError, match=r"No space left on device.*--resume"):
            save(tmp_path, step)
    assert tree(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2
    assert load_newest(tmp_path)[0].name == "checkpoint-00000002"


def test_a_failed_replacement_puts_the_old_one_back(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)
    before = tree(tmp_path)
    real = Path.rename

    def rename(path, target):
        if path.name.startswith(".staging"):
            raise FULL
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(TrainingError, match="No space left"):
        save(tmp_path, 2)
    assert tree(tmp_path) == before


def test_a_full_disk_is_a_training_error(tmp_path):
    save(tmp_path, 1)
    before = tree(tmp_path)
    big = Checkpoint({**content(2).tensors, "model": {"w": torch.zeros(2_000_000)}}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(TrainingError, match="could not be written"):
            save_checkpoint(tmp_path, 2, big, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_twelve_kills_leave_a_sound_checkpoint_each_time(tmp_path):
    save(tmp_path, 1)
    reached = 1
    for attempt in range(12):
        child = os.fork()
        if child == 0:
            try:
                step = reached
                while True:
                    save(tmp_path, step, keep=1)  # the first one replaces what is there
                    step += 1
            finally:
                os._exit(1)
        time.sleep(0.03 + 0.007 * attempt)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        _, loaded, _ = load_newest(tmp_path)
        assert loaded.state["step"] >= reached
        assert torch.equal(loaded.tensors["model"]["w"], content(loaded.state["step"]).tensors["model"]["w"])
        reached = loaded.state["step"]
    save(tmp_path, reached + 1, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{reached + 1:08d}"]


def test_the_optimizer_goes_on_as_if_nothing_had_happened():
    def stepped(net, optimizer, seed):
        torch.manual_seed(seed)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(4, 3)).square().sum().backward()
            optimizer.step()

    def made():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(2, 3))[:2]
        return net, build_optimizer(net, Optim(lr=0.1), lambda _: 1.0)

    straight, optimizer = made()
    stepped(straight, optimizer, 1)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, straight).items()}
    weights = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    stepped(straight, optimizer, 2)

    resumed, optimizer = made()
    resumed.load_state_dict(weights)
    restore_optimizer(optimizer, resumed, kept)
    stepped(resumed, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    with pytest.raises(TrainingError, match=r"unknown parameter 9\.weight"):
        restore_optimizer(optimizer, resumed, {"9.weight|step": torch.tensor(1.0)})


def test_the_manifest_names_every_file(tmp_path):
    save(tmp_path, 1)
    folder = tmp_path / "checkpoint-00000001"
    digests = json.loads((folder / "manifest.json").read_text())
    assert set(digests) == {path.name for path in folder.iterdir()} - {"manifest.json"}
