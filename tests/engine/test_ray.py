"""`--engine ray` on a cluster of this machine: what one process writes, also when workers are killed. Needs `ray`."""

import os
import signal
from functools import partial
from importlib.util import find_spec

import pytest
import soundfile as sf

from kikitori.engine.pool import LostError, each
from kikitori.engine.ray import ray_pool
from kikitori.errors import ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.model.weights import weights_digest
from tests.commands import call, one_line
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_waveform

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),  # imported, it would have its settings
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray leaves sockets and threads behind
]


def _work(_, batch):
    """Item 3 ends its process once, item 5 every time, item 6 fails."""
    for mark, item in batch:
        if item == 5 or (item == 3 and not mark.exists()):
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    return [item // (item - 6) for _, item in batch]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, tiny_acoustic_model())
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for seed in range(6):
        sf.write(folder / f"{seed}.wav", tiny_waveform(0.5 + 0.2 * seed, seed), SAMPLE_RATE)
    return folder


def test_files_are_those_of_one_process(model, speech, tmp_path):
    command = ["transcribe", speech, "--model", model]
    lines = call(*command).stdout
    ray = call(*command, "--engine", "ray", "--workers", 2)
    assert (ray.exit_code, ray.stdout) == (0, lines)
    assert call(*command, "-o", tmp_path / "here").exit_code == 0
    assert call(*command, "-o", tmp_path / "there", "--engine", "ray", "--workers", 1).exit_code == 0
    assert [file.read_bytes() for file in sorted((tmp_path / "there").glob("*.txt"))] == [
        file.read_bytes() for file in sorted((tmp_path / "here").glob("*.txt"))
    ]
    again = call(*command, "-o", tmp_path / "there")
    assert "6 done before" in again.stderr


def test_nothing_is_lost_or_doubled_when_workers_die(model, tmp_path, capfd):
    digest = weights_digest(load(model).loaded.model)
    items = [(tmp_path / "killed", item) for item in range(12)]
    with ray_pool(partial(load, model), digest, workers=2, gpu=False) as pool:
        found = [*each(pool, _work, items, [1.0] * 12)]
        assert sorted(number for number, _ in found) == [*range(12)]
        errors = {number: str(result) for number, result in found if isinstance(result, LostError)}
        assert {*errors} == {5, 6}
        assert errors[5] == "a worker died over it twice; see the logs of Ray"
        assert errors[6].startswith("a worker failed over it (ZeroDivisionError: ")
        assert {number: result for number, result in found if number not in errors} == {
            item: item // (item - 6) for item in range(12) if item not in errors
        }
    assert capfd.readouterr().out == ""
    with (
        ray_pool(partial(load, model), "other weights", workers=1, gpu=False) as pool,
        pytest.raises(ConfigError, match="a worker has other weights; copy them again"),
    ):
        [*each(pool, _work, items, [1.0] * 12)]


def test_a_cluster_that_is_not_there(model, speech, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    line = one_line(call("transcribe", speech, "--model", model, "--engine", "ray"))
    assert "127.0.0.1:1: Ray does not start" in line
