import pytest
import torch
from torch import nn

from kikitori.train.loop.checkpoint import Checkpoint
from kikitori.train.loop.selection import Selection
from kikitori.train.loop.state import learnt, mean
from kikitori.train.recipe.optim import Run


def offered(scores, **run):
    """A selection that saw weights 1, 2, 3, ... with these dev scores (None: not scored), and its module."""
    module = nn.Linear(1, 1, bias=False)
    selection = Selection(Run(epochs=len(scores), **run), {"weight"})
    for epoch, score in enumerate(scores, start=1):
        module.weight.data.fill_(float(epoch))
        selection.offer(module, epoch, {} if score is None else {"wer": score, "other": -score})
    return selection, module


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({}, 3.0),
        ({"average_best": 2}, 2.5),  # epochs 3 and 2
        ({"average_best": 3}, 8 / 3),  # and 3
        ({"average_best": 9}, 2.5),  # all that were scored
        ({"average_last": 1}, 5.0),
        ({"average_last": 3}, 4.0),
    ],
)
def test_the_mean_of_the_best_or_the_last(run, expected):
    selection, module = offered([0.9, 0.5, 0.3, 0.5, None], **run)
    if run.get("average_best") == 3:
        expected = (2 + 3 + 4) / 3
    assert selection.apply(module)
    assert module.weight.item() == pytest.approx(expected)


def test_of_equals_the_first_is_kept():
    selection, module = offered([0.5, 0.5, 0.5])
    selection.apply(module)
    assert module.weight.item() == 1.0


def test_without_scores_the_last_weights_stay():
    selection, module = offered([None, None])
    assert not selection.apply(module)
    assert module.weight.item() == 2.0


@pytest.mark.parametrize(
    ("scores", "exhausted"),
    [([0.5, 0.6, 0.7], True), ([0.5, 0.6, None], False), ([0.5, 0.6, 0.4], False), ([0.5, 0.5, 0.5], True)],
)
def test_patience_counts_evaluations_without_a_better_score(scores, exhausted):
    assert offered(scores, patience=2)[0].exhausted is exhausted
    assert not offered(scores)[0].exhausted


def test_what_a_checkpoint_keeps_is_all_there_is():
    selection, module = offered([0.9, 0.5, 0.3, 0.5], average_best=2, patience=3)
    again = Selection(selection.run, selection.names)
    again.restore(Checkpoint(selection.tensors(), {"selection": selection.state()}), torch.device("cpu"))
    for one in (selection, again):
        module.weight.data.fill_(9.0)
        one.offer(module, 5, {"wer": 0.4})
        one.apply(module)
        assert module.weight.item() == pytest.approx(6.0)  # epochs 3 and 5
        assert one.stale == 2


def test_frozen_weights_are_not_copied():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    assert set(learnt(net, {"1.weight", "1.bias"})) == {
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }


def test_the_mean_of_numbers_that_are_not_floating():
    copies = [{"x": torch.tensor(float(i)), "n": torch.tensor(i)} for i in (1, 2, 6)]
    assert mean(copies) == {"x": torch.tensor(3.0), "n": torch.tensor(6)}
    assert mean([]) == {}
