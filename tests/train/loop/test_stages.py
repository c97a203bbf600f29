import re

import pytest
import torch
from torch import nn

from kikitori.errors import TrainingError
from kikitori.train.build.task import build_task
from kikitori.train.loop.stages import plan
from kikitori.train.run import train
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from tests.train.helpers import (
    Interruption,
    Toy,
    acoustic_recipe,
    assert_same,
    checkpoint_contents,
    interrupt,
    make_recipe,
    speech_llm_recipe,
    text_recipe,
    toy_trainer,
    write_recipe,
)

STAGED = {
    "encoder": {"unfreeze_at": 3},
    "bridge": {"kind": "stack", "stride": 2, "unfreeze_at": 2},
    "llm": {"unfreeze_at": 5},
    "run": {"checkpoint_every": 1, "log_every": 1, "evaluate_every": 2},
}
STEPS = {"model.acoustic.encoder.": 3, "model.acoustic.ctc_heads.": 0, "model.bridge.": 2, "model.llm.": 5}


def toy(starts):
    task = Toy(dropout=0.3)
    task.starts = starts
    return task


def test_what_has_not_begun_has_neither_gradient_nor_state_nor_decay(tmp_path):
    task = toy({"0.weight": 3, "0.bias": 3})
    begun, first = [], {n: p.detach().clone() for n, p in task.module.named_parameters()}
    real = task.loss

    def loss(batch, position):
        value, parts = real(batch, position)
        begun.append([name for name, p in task.module.named_parameters() if p.requires_grad])
        return value, parts

    task.loss = loss
    trainer, lines = toy_trainer(task, tmp_path, epochs=1, weight_decay=0.5)
    trainer.stop = lambda: trainer.step == 3
    trainer.fit()
    assert lines[0] == "0.bias learns from step 3 on"
    now = dict(task.module.named_parameters())
    assert {name for name in now if torch.equal(now[name], first[name])} == {"0.weight", "0.bias"}
    assert {id(p) for p in trainer.optimizer.state} == {id(p) for n, p in now.items() if n not in task.starts}
    trainer.stop = lambda: False
    trainer.fit()
    later = ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert begun == [later] * 3 + [["0.weight", "0.bias", *later]] * 2
    assert not torch.equal(now["0.weight"], first["0.weight"])
    assert {int(trainer.optimizer.state[now[name]]["step"]) for name in task.starts} == {2}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_toy_resumes_around_the_step(tmp_path, accumulate):
    starts = {"0.weight": 2, "3.bias": 5}
    settings = {"accumulate": accumulate, "checkpoint_every": 1, "average_last": 2}
    toy_trainer(toy(starts), tmp_path / "straight", **settings)[0].fit()
    for after in range(1, 8):
        folder = tmp_path / str(after)
        trainer, _ = toy_trainer(toy(starts), folder, **settings)
        trainer.stop = lambda t=trainer, n=after: t.step >= n
        assert trainer.fit() is False
        trainer, _ = toy_trainer(toy(starts), folder, **settings)
        trainer.resume()
        assert trainer.fit() is True
        assert_same(checkpoint_contents(folder), checkpoint_contents(tmp_path / "straight"))


def test_a_staged_speech_llm_resumes_bit_for_bit(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(**STAGED))
    train(recipe, tmp_path / "straight")
    for after in (2, 3, 5):
        folder = tmp_path / str(after)
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, SpeechLLMTask, after)
            with pytest.raises(Interruption):
                train(recipe, folder)
        train(recipe, folder, resume=True)
        assert_same(checkpoint_contents(folder), checkpoint_contents(tmp_path / "straight"))


def test_components_begin_at_their_steps(corpus, tmp_path):
    task = build_task(make_recipe(tmp_path, corpus, speech_llm_recipe(**STAGED)), lambda _: None)
    encoder = task.acoustic.encoder
    stages = plan(task.module, task.unfreeze_at, task.component)
    assert stages.later == [2, 3, 5]
    assert stages.describe() == [
        "bridge learns from step 2 on",
        "encoder learns from step 3 on",
        "llm learns from step 5 on",
    ]
    for step in (0, 1, 2, 3, 4, 5, 6, 0):
        stages.enter(step)
        for name, parameter in task.module.named_parameters():
            at = next(at for part, at in STEPS.items() if name.startswith(part))
            assert parameter.requires_grad == (step >= at)
        assert encoder.training == (step >= 3)  # before, no dropout and no batch-norm drift
        assert task.speech_llm.llm.training


def test_what_is_frozen_for_good_stays_so(corpus, tmp_path):
    values = acoustic_recipe(encoder={"freeze_conv_front_end": True, "unfreeze_at": 2})
    task = build_task(make_recipe(tmp_path, corpus, values), lambda _: None)
    stages = plan(task.module, task.unfreeze_at, task.component)
    for step in (0, 2, 9):
        stages.enter(step)
        assert not any(p.requires_grad for p in task.acoustic.encoder.model.subsampling.parameters())
    assert all(p.requires_grad for p in task.acoustic.encoder.model.layers.parameters())


def test_something_learns_from_the_beginning(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, text_recipe(llm={"unfreeze_at": 4}))
    message = "unfreeze_at: nothing learns before step 4; leave one of them at 0"
    with pytest.raises(TrainingError, match=re.escape(message)):
        train(recipe, tmp_path / "run")
    net = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing learns, everything is frozen"):
        plan(net, lambda _: 0, str)


def test_a_run_that_ends_before_a_stage_says_so(tmp_path):
    trainer, lines = toy_trainer(toy({"0.weight": 99}), tmp_path)
    trainer.fit()
    assert "warning: the run ended after step 15; 0.weight learns from step 99 on" in lines
