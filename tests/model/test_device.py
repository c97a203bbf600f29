import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.device import lay_by_columns, torch_device


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


def test_matrices_by_columns_are_the_same_to_everybody():
    network = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False), torch.nn.Linear(7, 3))
    network[1].weight = network[0].weight  # tied
    expected, labels = {name: each.clone() for name, each in network.state_dict().items()}, torch.tensor([[6, 0, 3]])
    before = network(labels)
    lay_by_columns(network)
    assert network[1].weight is network[0].weight
    assert [each.weight.stride() for each in network[1:]] == [(1, 7), (1, 3)]
    assert all(torch.equal(each, expected[name]) for name, each in network.state_dict().items())
    torch.testing.assert_close(network(labels), before)
