import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kikitori.train.loop.optim import build_optimizer, lr_scale, set_lr
from kikitori.train.recipe.optim import Cosine, Optim, Piecewise

SETTINGS = Optim(lr=0.1, weight_decay=0.02)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.encoder = nn.Sequential(nn.Conv1d(4, 4, 3), nn.LayerNorm(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 5)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.embed.weight
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)


def by_name(net, optimizer):
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: groups.get(id(parameter)) for name, parameter in net.named_parameters()}


def test_decay_leaves_out_biases_norms_and_embeddings():
    net = Net()
    decay = {
        name: None if group is None else group["weight_decay"]
        for name, group in by_name(net, build_optimizer(net, SETTINGS, lambda _: 1.0)).items()
    }
    assert decay == {
        "embed.weight": 0.0,
        "encoder.0.weight": 0.02,
        "encoder.0.bias": 0.0,
        "encoder.1.weight": 0.0,
        "encoder.1.bias": 0.0,
        "encoder.2.weight": 0.02,
        "encoder.2.bias": 0.0,
        "head.weight": 0.02,
        "head.bias": 0.0,
        "frozen.weight": None,
        "frozen.bias": None,
    }


def test_lr_factors_and_settings():
    net = Net()
    optimizer = build_optimizer(net, SETTINGS, lambda name: 0.5 if name.startswith("encoder.") else 1.0)
    groups = by_name(net, optimizer)
    assert groups["encoder.0.weight"]["lr"] == groups["encoder.1.bias"]["lr"] == pytest.approx(0.05)
    assert groups["head.weight"]["lr"] == groups["embed.weight"]["lr"] == pytest.approx(0.1)
    assert len(optimizer.param_groups) == 4
    assert all(group["betas"] == (0.9, 0.98) and group["eps"] == 1e-8 for group in optimizer.param_groups)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in parameters}) == len(parameters) == 9


def test_set_lr_scales_from_the_base_each_time():
    net = Net()
    optimizer = build_optimizer(net, SETTINGS, lambda name: 0.5 if "encoder" in name else 1.0)
    for scale in (0.3, 0.0, 1.0):
        set_lr(optimizer, scale)
        groups = by_name(net, optimizer)
        assert groups["encoder.2.weight"]["lr"] == pytest.approx(0.05 * scale)
        assert groups["head.bias"]["lr"] == pytest.approx(0.1 * scale)


def test_base_lr_survives_saving():
    net = Net()
    optimizer = build_optimizer(net, SETTINGS, lambda _: 1.0)
    set_lr(optimizer, 0.1)
    restored = build_optimizer(net, SETTINGS, lambda _: 1.0)
    restored.load_state_dict(optimizer.state_dict())
    set_lr(restored, 1.0)
    assert restored.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_step_moves_what_learns_and_decays_what_decays():
    net = Net()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = build_optimizer(net, SETTINGS, lambda _: 1.0)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    for name, parameter in net.named_parameters():
        shrunk = name in ("encoder.0.weight", "encoder.2.weight", "head.weight")
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * 0.02) if shrunk else before[name])


@pytest.mark.parametrize(
    ("progress", "scale"),
    [
        (0.0, 1e-3),
        (0.05, 0.5),
        (0.1, 1.0),
        (0.325, 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))),
        (0.55, 0.6),
        (1.0, 0.2),
        (1.1, 0.2),
    ],
)
def test_cosine(progress, scale):
    assert lr_scale(Cosine(kind="cosine", warmup=0.1, final=0.2), progress) == pytest.approx(scale)


@pytest.mark.parametrize(
    ("progress", "scale"),
    [(0.0, 0.01), (0.225, 0.505), (0.45, 1.0), (0.675, 0.505), (0.9, 0.01), (0.95, 0.0055), (1.0, 0.001), (1.2, 0.001)],
)
def test_piecewise_of_the_paper(progress, scale):
    assert lr_scale(Piecewise(kind="piecewise"), progress) == pytest.approx(scale)


def test_piecewise_with_steps():
    schedule = Piecewise(kind="piecewise", points=[(0.0, 1.0), (0.5, 1.0), (0.5, 0.1), (1.0, 0.1), (1.0, 0.0)])
    assert [lr_scale(schedule, p) for p in (0.0, 0.49, 0.5, 0.99, 1.0)] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.0])


def test_warmup_of_nothing_and_of_everything():
    assert lr_scale(Cosine(kind="cosine", warmup=0.0), 0.0) == 1.0
    assert lr_scale(Cosine(kind="cosine", warmup=1.0), 0.5) == 0.5
    assert lr_scale(Cosine(kind="cosine", warmup=1.0), 1.0) == 1.0


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_cosine_rises_then_falls_within_bounds(warmup, final, a, b):
    schedule = Cosine(kind="cosine", warmup=warmup, final=final)
    low, high = sorted((a, b))
    first, second = lr_scale(schedule, low), lr_scale(schedule, high)
    assert 0 <= first <= 1 + 1e-9
    if high < warmup:
        assert first <= second
    if low >= warmup:
        assert first >= second - 1e-9
        assert second >= final - 1e-9


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6), st.floats(0, 1))
def test_piecewise_stays_within_its_points(middle, progress):
    points = [(0.0, 0.5), *sorted(middle), (1.0, 0.2)]
    scale = lr_scale(Piecewise(kind="piecewise", points=points), progress)
    factors = [factor for _, factor in points]
    assert min(factors) - 1e-9 <= scale <= max(factors) + 1e-9
