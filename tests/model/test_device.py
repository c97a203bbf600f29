import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.device import torch_device


def test_a_gpu_where_there_is_one_and_each_process_of_torchrun_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert torch_device("auto") == torch_device("cpu") == "cpu"
    with pytest.raises(ModelError, match="torch sees no GPU"):
        torch_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == torch_device("cuda") == "cuda:3"
    assert torch_device("cpu") == "cpu"
    monkeypatch.delenv("LOCAL_RANK")
    assert torch_device("auto") == torch_device("cuda") == "cuda"
