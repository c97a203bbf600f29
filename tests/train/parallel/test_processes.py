"""Two processes over gloo: the same training as one, copies of the model or pieces of it, and exact resuming."""

import json

import pytest
import torch
from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.parallel import processes
from tests.train.helpers import Interruption, Toy, assert_same, checkpoint_contents, toy_trainer
from tests.train.parallel.job import run_together

SETTINGS = {"checkpoint_every": 1, "average_last": 2, "accumulate": 2, "log_every": 1}
SHARDING = ("none", "fsdp")
UNREADABLE = (2, 3, 5)
"""Of the batches of an epoch: with two processes, two batches to a step, all of the second half of the first step."""


class Gaps(Toy):
    """Some batches cannot be read, in one process or in both, and the module has a part that nothing uses."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.module.add_module("idle", nn.Linear(3, 3))
        self.used = self.module[:4]

    def load(self, indices, epoch):
        return None if self.batches(epoch).index(indices) in UNREADABLE else super().load(indices, epoch)

    def loss(self, batch, position):
        module, self.module = self.module, self.used
        try:
            return super().loss(batch, position)
        finally:
            self.module = module


def work(folder):
    rank = processes.start(torch.device("cpu"))[0]
    for sharding in SHARDING:
        # Seven batches leave a gap at the end of an epoch.
        settings = {"sharding": sharding, "accumulate": 2, "log_every": 1}
        toy_trainer(Gaps(num_batches=7), folder / f"{sharding}_even", **settings)[0].fit()
        toy_trainer(Toy(dropout=0.3), folder / f"{sharding}_straight", sharding=sharding, **SETTINGS)[0].fit()
        task = Toy(dropout=0.3)
        task.stop_after = 5
        with pytest.raises(Interruption):
            toy_trainer(task, folder / f"{sharding}_resumed", sharding=sharding, **SETTINGS)[0].fit()
        trainer, _ = toy_trainer(Toy(dropout=0.3), folder / f"{sharding}_resumed", sharding=sharding, **SETTINGS)
        trainer.resume()
        trainer.fit()
    numbers = torch.tensor([float(rank)])
    processes.average_tensors([numbers])
    found = [processes.total(2 - rank, 1), numbers.item(), processes.gather(rank)]
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    with pytest.raises(TrainingError, match=r"process 1 beside process 0: .* same: recipe\.seed is 0 and 1; start"):
        processes.check_same({"recipe": {"seed": rank}})
    processes.wait()
    if rank == 0:
        lost = pytest.raises(TrainingError, match=r"process 0 of 2: another process of the run has ended.*--resume")
        with lost, processes.together():
            processes.wait()


@pytest.mark.timeout(600)
def test_two_processes_train_like_one_and_resume_exactly(tmp_path):
    assert run_together(2, work, tmp_path) == [0, 0]
    task = Gaps(num_batches=7)
    toy_trainer(task, tmp_path / "one", accumulate=4, log_every=1)[0].fit()
    for sharding in SHARDING:
        together = load_newest(tmp_path / f"{sharding}_even" / "checkpoints")[1].tensors["model"]
        for name, tensor in task.module.state_dict().items():
            # AdamW has no averages of what nothing uses, but FSDP2 gives it gradients of zero, and so weight decay.
            if sharding == "none" or not name.startswith("idle"):
                torch.testing.assert_close(together[name], tensor, rtol=1e-5, atol=1e-5)
        assert losses(tmp_path / f"{sharding}_even") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
        straight = checkpoint_contents(tmp_path / f"{sharding}_straight")
        assert not torch.equal(straight["random/cpu0"], straight["random/cpu1"])
        assert_same(checkpoint_contents(tmp_path / f"{sharding}_resumed"), straight)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"found{rank}.json").read_text()) == [[3, 2], 0.5, [0, 1]]


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("loss", "grad_norm", "lr")]


def test_one_process_needs_no_peers():
    assert processes.start(torch.device("cpu")) == (0, 1)
    assert processes.total(3, 0) == (3, 0)
    assert processes.gather("a") == ["a"]
    assert processes.rank() == 0
    processes.average_tensors([torch.ones(2)])
    processes.check_same({})
    processes.wait()
    processes.leave()
    with pytest.raises(RuntimeError, match="reset by peer"), processes.together():
        raise RuntimeError("reset by peer")
