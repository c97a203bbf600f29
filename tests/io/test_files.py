import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from kikitori.errors import DataError
from kikitori.io.files import LOCK, locked, replace_folder


def test_weights_can_be_read_by_whoever_may_read_the_folder(tmp_path):
    mask = os.umask(0o027)
    try:
        with replace_folder(tmp_path / "model") as staging:
            (staging / "lm").mkdir()
            for file in (staging / "model.safetensors", staging / "lm" / "model.safetensors"):
                save_file({"a": torch.zeros(2)}, file)
    finally:
        os.umask(mask)
    modes = [file.stat().st_mode & 0o777 for file in (tmp_path / "model").rglob("*.safetensors")]
    assert modes == [0o640, 0o640]


def test_a_folder_has_one_writer_and_a_killed_one_lets_it_go(tmp_path):
    hold = "import sys, time; from pathlib import Path; from kikitori.io.files import locked\n"
    hold += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="another run is writing to this folder; wait for it"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path), pytest.raises(DataError, match="another run"), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
