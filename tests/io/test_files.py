import os

import torch
from safetensors.torch import save_file

from kikitori.io.files import replace_folder


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
