"""The profile of a run: its parts, and that it changes nothing."""

import gzip
import json
from itertools import takewhile

import pytest

from kikitori.train.run import train
from tests.train.helpers import (
    Toy,
    assert_same,
    checkpoint_contents,
    speech_llm_recipe,
    toy_trainer,
    write_recipe,
)


def shares(path):
    """The lines of a profile, and its shares in per cent by part."""
    lines = path.read_text().splitlines()
    parts = takewhile(lambda line: not line.startswith("operator"), lines[2:])
    return lines, {line[:48].strip(): float(line[48:].strip(" %")) for line in parts}


def test_parts_of_a_speech_llm(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(run={"profile": 2, "epochs": 1}))
    train(recipe, tmp_path / "run")
    lines, found = shares(tmp_path / "run" / "profile.txt")
    assert lines[0].startswith("2 steps of ")
    assert found.keys() == {
        *("data", "forward", "encoder", "CTC heads", "bridge", "LLM", "backward", "update"),
        "evaluation, checkpoints, other",
    }
    assert sum(found[name] for name in ("encoder", "CTC heads", "bridge", "LLM")) <= found["forward"] + 0.5
    assert all(found[name] > 0.0 for name in ("encoder", "LLM", "backward", "update"))
    assert found["evaluation, checkpoints, other"] >= 0.0
    assert any("aten::" in line for line in lines)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert all(f"profile: {line}\n" in log for line in lines)
    with gzip.open(tmp_path / "run" / "profile.json.gz") as trace:
        assert json.load(trace)["traceEvents"]


def test_a_profiled_run_ends_bit_for_bit_like_another_one(tmp_path):
    for name, steps in (("plain", 0), ("profiled", 3)):
        toy_trainer(Toy(dropout=0.3), tmp_path / name, profile=steps)[0].fit()
    assert_same(checkpoint_contents(tmp_path / "plain"), checkpoint_contents(tmp_path / "profiled"))
    assert (tmp_path / "profiled" / "profile.txt").is_file()
    assert not [*(tmp_path / "plain").glob("profile*")]


def test_a_run_of_fewer_steps_profiles_those_that_there_are(tmp_path):
    trainer, _ = toy_trainer(Toy(num_batches=4), tmp_path, profile=100, epochs=1)
    trainer.fit()
    assert shares(tmp_path / "profile.txt")[0][0].startswith("2 steps of ")


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_that_is_too_short_for_a_profile_says_so(tmp_path, steps):
    trainer, lines = toy_trainer(Toy(num_batches=steps), tmp_path, profile=1, epochs=1)
    trainer.fit()
    assert lines[-1] == "warning: the run ended before step 3; nothing was profiled"
