import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kikitori.errors import TrainingError
from kikitori.model.folder import load_llm
from kikitori.model.safety.config import quiet_transformers
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.loop.state import check_frozen, frozen_digests, learnt
from kikitori.train.run import train
from tests.tiny import save_tiny_llm, tiny_bpe
from tests.train.helpers import (
    acoustic_recipe,
    assert_same,
    checkpoint_contents,
    speech_llm_recipe,
    write_corpus,
    write_recipe,
)


def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})})


def half(name):
    return name[: len("a.b")]


def test_digests_tell_any_change_of_what_is_frozen():
    module = net()
    learning = {"a.c.weight", "a.c.bias"}
    before = frozen_digests(module, learning, half)
    assert before.keys() == {"a.b"}
    assert frozen_digests(net(), learning, half) == before
    module["a"]["c"].weight.data += 1
    check_frozen(before, frozen_digests(module, learning, half), {}, where="x")
    module["a"]["b"].bias.data[1] += 1e-7
    for changed in (frozen_digests(module, learning, half), {}):
        with pytest.raises(TrainingError) as error:
            check_frozen(before, changed, {"a.b": None}, where="x")
        assert str(error.value) == (
            "x: the frozen weights of the a.b are not those of the run; resume with its recipe and seed"
        )
        with pytest.raises(
            TrainingError, match=r"weights of the a\.b are not those that a\.b\.init gave \(y\); put that"
        ):
            check_frozen(before, changed, {"a.b": {"init": "y"}}, where="x")
    assert set(learnt(module, learning)) == learning
    empty = nn.ModuleDict(
        {"a": nn.ParameterDict({"b": nn.Parameter(torch.zeros(0)), "c": nn.Parameter(torch.ones(()))})}
    )
    assert set(frozen_digests(empty, (), half)) == {"a.b", "a.c"}


@pytest.fixture
def lora_run(tmp_path):
    """A finished LoRA run on a frozen encoder, its recipe, and the LLM that it starts from."""
    write_corpus(tmp_path / "corpus")
    save_tiny_llm(tmp_path / "llm", "llama", units=tiny_bpe())
    values = speech_llm_recipe(
        units={"kind": "llm", "text_form": "as_is"},
        encoder={"policy": "frozen"},
        llm={"init": str(tmp_path / "llm"), "policy": "lora", "lora": {"rank": 2}},
        run={"checkpoint_every": 1, "average_best": 2},
    )
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "corpus", values)
    train(recipe, tmp_path / "run")
    return recipe, tmp_path / "run", tmp_path / "llm"


def test_checkpoints_hold_what_training_changes_alone(lora_run):
    _, run, _ = lora_run
    newest, checkpoint, _ = load_newest(run / "checkpoints")
    parts = ("lora", "bridge", "ctc_heads")
    model = checkpoint.tensors["model"]
    assert all(any(part in name for part in parts) or "running_" in name or "num_batches" in name for name in model)
    assert any("lora_A" in name for name in model)
    assert checkpoint.tensors["copy0"].keys() == model.keys()
    assert checkpoint.state["frozen"].keys() == {"encoder", "llm"}
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (newest, run / "model")]
    assert sizes[0] < sizes[1] / 4


def test_a_resumed_lora_run_is_exact_and_needs_the_same_llm(lora_run, tmp_path):
    recipe, straight, llm = lora_run
    changed = load_llm(llm)
    again = tmp_path / "again"
    shutil.copytree(straight, again)
    for path in sorted((again / "checkpoints").iterdir())[1:]:
        shutil.rmtree(path)
    shutil.rmtree(again / "model")
    train(recipe, again, resume=True)
    assert_same(checkpoint_contents(again), checkpoint_contents(straight))
    names = [load_file(folder / "model" / "model.safetensors") for folder in (again, straight)]
    assert_same(names[0], names[1])

    changed.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1e-6
    with quiet_transformers():
        changed.save_pretrained(llm)
    message = (
        rf"checkpoint-\d+: the frozen weights of the llm are not those that llm\.init gave \({re.escape(str(llm))}\)"
    )
    for weights_only in (False, True):
        with pytest.raises(TrainingError, match=message):
            train(recipe, again, resume=True, weights_only=weights_only)


def test_a_frozen_encoder_of_another_seed_is_refused(tmp_path):
    write_corpus(tmp_path / "corpus")
    values = acoustic_recipe(encoder={"policy": "frozen"}, run={"epochs": 1})
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "corpus", values)
    train(recipe, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"frozen weights of the encoder are not those of the run"):
        train(recipe, tmp_path / "run", resume=True, overrides=["seed=2", "run.epochs=2"])
    train(recipe, tmp_path / "run", resume=True, overrides=["run.epochs=2"])
