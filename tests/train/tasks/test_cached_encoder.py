"""Outputs of a frozen encoder on disk: training with them is training without them."""

import json

import pytest
import torch

from kikitori.errors import ConfigError, TrainingError
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.encoder_cache import INDEX, STATES, EncoderCache
from tests.tiny import tiny_whisper
from tests.train.helpers import AUGMENT, HUBERT, acoustic_recipe

START = BatchPosition(0, 0, 0.0)
PLAIN = AUGMENT | {"spec_augment": None}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    tiny_whisper(multilingual=False).save_pretrained(folder)
    return folder


def top(whisper, **changes):
    """A recipe whose last encoder layer learns."""
    start = {"init": str(whisper), "policy": "top", "top_layers": 1, "window": "speech"}
    return acoustic_recipe(augment=PLAIN) | {"encoder": start | changes}


def gradients(task, batch, position=START):
    task.module.zero_grad()
    loss, _ = task.loss(batch, position)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in task.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("window", ["speech", "padded"])
def test_losses_and_gradients_are_those_without_a_cache(build, whisper, tmp_path, window):
    plain = build(top(whisper, window=window))
    cached = build(top(whisper, window=window, cache=str(tmp_path / "cache")))
    cached.module.load_state_dict(plain.module.state_dict())
    for task in (plain, cached):
        task.module.eval()
    indices = [0, 3, 6]
    expected, slopes = gradients(plain, plain.load(indices, 0))
    first, _ = gradients(cached, cached.load(indices, 0))
    batch = cached.load(indices, 0)
    assert batch.waveforms.shape == (3, 0)  # nothing is read again
    assert batch.seconds == pytest.approx(plain.load(indices, 0).seconds)
    again, found = gradients(cached, batch)
    assert first == again == pytest.approx(expected, rel=1e-3)
    assert set(found) == set(slopes) == {name for name in slopes if ".layers.0." not in name}
    for name, slope in slopes.items():
        torch.testing.assert_close(found[name], slope, atol=2e-3, rtol=2e-2)
    assert cached.evaluate() == plain.evaluate()


def test_a_frozen_encoder_of_any_family(build, tmp_path):
    recipe = acoustic_recipe(augment=PLAIN, ctc={"weights": {1: 0.5, 2: 1.0}})
    folder = tmp_path / "start"
    start = build(acoustic_recipe() | {"encoder": {"config": HUBERT}})
    start.acoustic.encoder.model.save_pretrained(folder)
    frozen = {"init": str(folder), "policy": "frozen"}
    plain = build(recipe | {"encoder": frozen})
    cached = build(recipe | {"encoder": frozen | {"cache": str(tmp_path / "cache")}})
    cached.module.load_state_dict(plain.module.state_dict())
    for task in (plain, cached):
        task.module.eval()
    expected, _ = gradients(plain, plain.load([1, 2], 0))
    for _ in range(2):
        assert gradients(cached, cached.load([1, 2], 0))[0] == pytest.approx(expected, rel=1e-3)


def test_epochs_take_turns_among_augmented_copies(build, whisper, tmp_path):
    task = build(top(whisper, cache=str(tmp_path / "cache"), cache_copies=2))
    task.module.eval()
    losses = [task.loss(task.load([4, 5], epoch), BatchPosition(epoch, 0, 0.0))[0].item() for epoch in range(4)]
    assert losses[0] == losses[2] != losses[1] == losses[3]


def test_outputs_of_another_encoder_or_augmentation_are_refused(build, whisper, tmp_path):
    folder = tmp_path / "cache"
    settings = top(whisper, cache=str(folder))
    build(settings)
    build(settings)
    with pytest.raises(ConfigError, match=r"outputs of another encoder or augmentation \(augment\)"):
        build(settings | {"augment": AUGMENT})
    with pytest.raises(ConfigError, match=r"\(encoder, layers\)"):
        build(top(whisper, cache=str(folder), top_layers=2))


def test_what_cannot_be_kept_is_refused(build, tmp_path):
    cache = str(tmp_path / "cache")
    with pytest.raises(ConfigError, match="cannot go on from kept states"):
        build(acoustic_recipe() | {"encoder": {"config": HUBERT, "policy": "top", "top_layers": 1, "cache": cache}})


def rows(cache, *names):
    generator = torch.Generator().manual_seed(1)
    return {name: cache.write(name, torch.randn(3, 4, generator=generator), 480) for name in names}


def test_states_survive_a_kill_and_damage(tmp_path):
    written = rows(EncoderCache(tmp_path, 4, {}), "a", "b", "c")
    index = tmp_path / INDEX
    index.write_text(index.read_text()[:-20])  # killed while it wrote the last line
    with (tmp_path / STATES).open("r+b") as file:
        file.seek(2)
        file.write(b"??")
    cache = EncoderCache(tmp_path, 4, {})
    assert [cache.samples(name) for name in "abc"] == [480, 480, None]
    assert cache.read("a") is None
    assert torch.equal(cache.read("b"), written["b"])
    written |= rows(cache, "c", "a")
    again = EncoderCache(tmp_path, 4, {})
    assert all(torch.equal(again.read(name), states) for name, states in written.items())
    index.write_text(index.read_text() + json.dumps({"name": "d", "offset": 10**9}) + "\n")
    assert EncoderCache(tmp_path, 4, {}).read("d") is None


def test_what_16_bits_cannot_say_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="larger than 16 bits can say"):
        EncoderCache(tmp_path, 4, {}).write("a", torch.full((1, 4), 1e6), 1)


def test_a_cache_without_its_key(tmp_path):
    EncoderCache(tmp_path, 4, {})
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        EncoderCache(tmp_path, 4, {})
