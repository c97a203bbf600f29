"""Two processes over gloo on this machine: the same training as one process, and exact resuming."""

import json
import os
import socket

import pytest
import torch
from torch import nn

from kikitori.train.loop import distributed
from tests.processes import start
from tests.train.helpers import Interruption, Toy, assert_same, checkpoint_contents, toy_trainer


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank))
    torch.set_num_threads(1)
    toy_trainer(Toy(num_batches=6), folder / "even")[0].fit()  # six batches: three pairs

    # Dropout draws other numbers in each process; five batches leave a gap that the first one fills.
    settings = {"checkpoint_every": 1, "average_last": 2, "accumulate": 2}
    toy_trainer(Toy(dropout=0.3), folder / "straight", **settings)[0].fit()
    task = Toy(dropout=0.3)
    task.stop_after = 5
    with pytest.raises(Interruption):
        toy_trainer(task, folder / "resumed", **settings)[0].fit()
    trainer, _ = toy_trainer(Toy(dropout=0.3), folder / "resumed", **settings)
    trainer.resume()
    trainer.fit()

    net = nn.Linear(2, 1, bias=False)
    net.register_buffer("seen", torch.tensor([float(rank)]))
    net.weight.grad = torch.tensor([[1.0, 2.0]]) if rank else torch.tensor([[5.0, 0.0]])
    (used,) = distributed.total(2 - rank)
    distributed.average_gradients(net.parameters(), used)
    distributed.average_tensors([net.seen])
    lazy = nn.Linear(1, 1, bias=False)  # only one process has a gradient
    if rank:
        lazy.weight.grad = torch.tensor([[4.0]])
    distributed.average_gradients(lazy.parameters(), 1)
    found = [used, net.weight.grad.tolist(), net.seen.item(), lazy.weight.grad.item(), distributed.gather(rank)]
    (folder / f"found{rank}.json").write_text(json.dumps(found))


@pytest.mark.timeout(600)
def test_two_processes_train_like_one_and_resume_exactly(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start(worker, rank, port, tmp_path) for rank in range(2)]
    for each in workers:
        each.join()
    assert [each.exitcode for each in workers] == [0, 0]

    task = Toy(num_batches=6)
    toy_trainer(task, tmp_path / "one", accumulate=2)[0].fit()
    together = checkpoint_contents(tmp_path / "even")
    for name, tensor in task.module.state_dict().items():
        torch.testing.assert_close(together[f"model/{name}"], tensor, rtol=1e-5, atol=1e-5)

    straight = checkpoint_contents(tmp_path / "straight")
    assert {"random/cpu0", "random/cpu1"} <= straight.keys()
    assert not torch.equal(straight["random/cpu0"], straight["random/cpu1"])
    assert_same(checkpoint_contents(tmp_path / "resumed"), straight)

    for rank in (0, 1):
        found = json.loads((tmp_path / f"found{rank}.json").read_text())
        assert found == [3, [pytest.approx([2.0, 2 / 3])], 0.5, 4.0, [0, 1]]


def test_one_process_needs_no_peers():
    assert distributed.start(torch.device("cpu")) == (0, 1)
    net = nn.Linear(2, 2)
    net.weight.grad = torch.full((2, 2), 6.0)
    net.bias.requires_grad_(False)
    distributed.average_gradients(net.parameters(), 3)
    assert torch.equal(net.weight.grad, torch.full((2, 2), 2.0))
    assert net.bias.grad is None
    assert distributed.total(3, 0) == (3, 0)
    assert distributed.gather("a") == ["a"]
    distributed.average_tensors([net.weight])
    distributed.wait()
