"""Real recipes by several processes over gloo: the losses and weights of one process, and resuming with others."""

import json
import shutil
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from kikitori.errors import ConfigError
from kikitori.train.build.task import build_task
from kikitori.train.parallel.strategy import Alone, Replicated, build_strategy
from kikitori.train.recipe.optim import Run
from kikitori.train.run import train
from tests.train.helpers import (
    HUBERT,
    PARAKEET,
    Toy,
    acoustic_recipe,
    checkpoint_contents,
    make_recipe,
    masked_recipe,
    speech_llm_recipe,
    text_recipe,
    write_recipe,
)
from tests.train.parallel.job import run_together

QUIET = {"dropout": 0.0, "layerdrop": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
STILL = {"encoder": {"config": {**PARAKEET, **QUIET}}, "data": {"max_batch_size": 1}}
"""Nothing random in the forward pass: processes draw numbers of their own."""
LORA = {"policy": "lora", "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0}}
QUIET_HUBERT = {
    **HUBERT, **QUIET, "mask_time_prob": 0.0, "hidden_dropout": 0.0, "feat_proj_dropout": 0.0,
}  # fmt: skip
RECIPES = {
    "acoustic": acoustic_recipe(**STILL),
    "hubert": acoustic_recipe(**{**STILL, "encoder": {"config": QUIET_HUBERT}}),
    "speech_llm": speech_llm_recipe(**STILL),
    "lora": speech_llm_recipe(**{**STILL, "llm": LORA, "encoder": {**STILL["encoder"], "policy": "frozen"}}),
    "again": speech_llm_recipe(**STILL, run={"gradient_checkpointing": True}),
    "bfloat16": speech_llm_recipe(**STILL, run={"precision": "bfloat16"}),
    "merged": speech_llm_recipe(**STILL, interface="merged_attention"),
    "cross": speech_llm_recipe(**STILL, interface="cross_attention"),
    "text": text_recipe(),
    "masked": masked_recipe(**STILL),
}


def job(recipe, folder, resume=False):
    train(recipe, folder, resume=resume)


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def recipe_of(folder, corpus, name, sharding, accumulate, **run):
    values = {**RECIPES[name]}
    values["run"] = {**values["run"], "log_every": 1, "sharding": sharding, **run}
    values["optim"] = {**values["optim"], "accumulate": accumulate}
    return write_recipe(folder / f"{name}_{sharding}_{accumulate}.yaml", corpus, values)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "sharding", "count"),
    [("speech_llm", "none", 4), ("speech_llm", "fsdp", 4), *product(RECIPES, ("none", "fsdp"), (2,))],
)
def test_several_processes_train_like_one(corpus, tmp_path, name, sharding, count):
    train(recipe_of(tmp_path, corpus, name, "none", count), tmp_path / "one")
    recipe = recipe_of(tmp_path, corpus, name, sharding, 1)
    assert run_together(count, job, recipe, tmp_path / "many") == [0] * count
    near = 2e-2 if name == "bfloat16" else 2e-4
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), rel=near)
    one, many = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "many"))
    assert one.keys() == many.keys()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_goes_on_with_any_number_of_processes(corpus, tmp_path):
    for sharding in ("none", "fsdp"):
        recipe = recipe_of(tmp_path, corpus, "speech_llm", sharding, 1, checkpoint_every=2, keep_checkpoints=9)
        straight = tmp_path / sharding
        assert run_together(2, job, recipe, straight) == [0, 0]
        for other, count in (("none", 1), ("none", 2), ("fsdp", 2), ("fsdp", 4)):
            run = tmp_path / f"{sharding}_{other}{count}"
            shutil.copytree(straight, run)
            for late in sorted((run / "checkpoints").iterdir())[1:]:
                shutil.rmtree(late)
            again = recipe_of(tmp_path, corpus, "speech_llm", other, 2 // count or 1, checkpoint_every=2)
            if count == 1:
                train(again, run, resume=True)
            else:
                assert run_together(count, job, again, run, True) == [0] * count
            if count == 4:
                continue  # steps of four batches: another run
            assert losses(run) == pytest.approx(losses(straight), rel=2e-4)
            if (other, count) == (sharding, 2):
                before, after = checkpoint_contents(straight), checkpoint_contents(run)
                assert all(torch.equal(after[key], value) for key, value in before.items())


def test_one_process_needs_no_peers():
    task = Toy()
    assert isinstance(build_strategy(task, Run(epochs=1, sharding="fsdp"), torch.device("cpu"), 1), Alone)


def test_what_ddp_is_given_beside_the_model_is_on_the_device():
    strategy = build_strategy(Toy(), Run(epochs=1), torch.device("meta"), 2)
    assert isinstance(strategy, Replicated)
    assert {parameter.device.type for parameter in strategy.losses.parameters(recurse=False)} == {"meta"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": {"config": PARAKEET}}, r"run\.sharding: LayerDrop of parakeet_encoder skips a layer"),
        ({**STILL, "encoder": {**STILL["encoder"], "unfreeze_at": 2}}, r"run\.sharding: with fsdp everything that"),
    ],
)
def test_what_cannot_be_sharded_is_refused(corpus, tmp_path, values, message):
    task = build_task(make_recipe(tmp_path, corpus, acoustic_recipe(**values)), lambda _: None)
    with pytest.raises(ConfigError, match=message):
        build_strategy(task, Run(epochs=1, sharding="fsdp"), torch.device("cpu"), 2)


def test_an_older_torch_is_named(monkeypatch):
    monkeypatch.delattr(FSDPModule, "set_reduce_scatter_unused_params")
    with pytest.raises(ConfigError, match=r"run\.sharding: fsdp needs torch 2\.13"):
        build_strategy(Toy(), Run(epochs=1, sharding="fsdp"), torch.device("cpu"), 2)
