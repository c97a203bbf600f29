"""Linear layers in 8 bits: exact sums of rounded numbers, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from kikitori.errors import ConfigError
from kikitori.loading import load
from kikitori.model.whisper import int8
from kikitori.model.whisper.int8 import LEVELS, Int8Linear, check_int8, is_exact, to_int8
from kikitori.recognizer import PLAIN
from tests.tiny import save_tiny, save_tiny_whisper, tiny_waveforms, tiny_whisper

exact = pytest.mark.skipif(not is_exact(), reason="this processor adds 8-bit products with loss")
WAVEFORMS = tiny_waveforms(6)


def layer(size=96, outputs=70, *, bias=True):
    torch.manual_seed(3)
    made = nn.Linear(size, outputs, bias=bias)
    made.weight.data[5] = 0.0
    made.weight.data[6] *= 100.0
    return made


def by_hand(linear, inputs):
    """The same in numpy, with sums of integers."""
    weight, rows = (each.detach().numpy() for each in (linear.weight, inputs.reshape(-1, inputs.shape[-1])))
    sizes = [np.maximum(np.abs(each).max(axis=1, keepdims=True), np.float32(1e-20)) for each in (rows, weight)]
    rounded = [np.rint(each * (np.float32(LEVELS) / size)) for each, size in zip((rows, weight), sizes, strict=True)]
    sums = rounded[0].astype(np.int64) @ rounded[1].astype(np.int64).T
    found = sums * (sizes[0].astype(np.float64) / LEVELS) * (sizes[1].astype(np.float64).T / LEVELS)
    return found + (0.0 if linear.bias is None else linear.bias.detach().numpy())


@exact
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(96,), (1, 96), (2, 7, 96), (300, 96)])
def test_it_is_what_integers_give(shape, bias):
    linear = layer(bias=bias)
    inputs = torch.randn(shape) * 10.0 ** torch.randint(-3, 4, (*shape[:-1], 1))
    with torch.inference_mode():
        found = Int8Linear(linear)(inputs)
    assert found.shape == (*shape[:-1], 70)
    assert found.reshape(-1, 70).numpy() == pytest.approx(by_hand(linear, inputs), rel=2e-5, abs=1e-6)


@exact
def test_it_is_near_to_what_it_replaces():
    linear, inputs = layer(), torch.randn(50, 96)
    with torch.inference_mode():
        right, found = linear(inputs), Int8Linear(linear)(inputs)
    assert float((found - right).std() / right.std()) < 0.01


@exact
def test_an_input_is_rounded_by_itself():
    quick, inputs = Int8Linear(layer()), torch.randn(40, 96)
    inputs[7] *= 1000.0
    with torch.inference_mode():
        alone = torch.cat([quick(row[None]) for row in inputs])
        assert torch.equal(quick(inputs), alone)


@exact
def test_zeros_and_what_is_no_number():
    quick, linear = Int8Linear(layer()), layer()
    with torch.inference_mode():
        assert torch.equal(quick(torch.zeros(2, 96)), linear.bias.expand(2, -1))
        broken = torch.randn(3, 96)
        broken[1, 4] = torch.nan
        assert quick(broken).isnan().all(dim=1).tolist() == [False, True, False]


@exact
def test_small_layers_stay_and_shared_ones_are_made_once():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = self.two = nn.ModuleList([layer()])
            self.small = nn.Linear(96, 31)

    network = Two()
    to_int8(network)
    assert type(network.small) is nn.Linear
    assert isinstance(network.one[0], Int8Linear)
    assert network.one[0] is network.two[0]


def test_processors_that_lose_something_are_refused(monkeypatch):
    monkeypatch.setattr(int8, "is_exact", lambda: False)
    with pytest.raises(ConfigError, match="adds 8-bit products with loss; use float32"):
        check_int8()


@exact
@pytest.mark.parametrize("window", ["padded", "speech"])
def test_a_whisper_in_8_bits(tmp_path, monkeypatch, window):
    monkeypatch.setattr(int8, "LEAST_SIZE", 8)
    save_tiny_whisper(tmp_path / "whisper", tiny_whisper())
    recognizer = load(tmp_path / "whisper", device="cpu", guards=PLAIN, dtype="int8", window=window)
    kinds = {type(module) for module in recognizer.loaded.model.modules()}
    assert Int8Linear in kinds
    assert nn.Linear not in kinds
    together = recognizer.recognize(WAVEFORMS)
    alone = [recognizer.recognize([waveform])[0] for waveform in WAVEFORMS]
    assert [each.labels for each in together] == [each.labels for each in alone]
    right = load(tmp_path / "whisper", device="cpu", guards=PLAIN, window=window).recognize(WAVEFORMS)
    pairs = [*zip(together, right, strict=True)]
    assert sum(each.labels[:3] == other.labels[:3] for each, other in pairs) >= len(pairs) // 2


def test_other_networks_are_refused(tmp_path):
    save_tiny(tmp_path / "model")
    with pytest.raises(ConfigError, match="dtype: int8 is there for Whisper's networks alone; use float32"):
        load(tmp_path / "model", device="cpu", dtype="int8")
