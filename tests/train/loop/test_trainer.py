import json
import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from kikitori.data.speech import SpeechLoader
from kikitori.errors import TrainingError
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.loop.state import load_weights, weights
from kikitori.train.parallel import processes
from kikitori.train.run import train
from kikitori.train.tasks.speech import AcousticTask
from tests.crossed import crossed
from tests.train.helpers import (
    AUGMENT,
    HUBERT,
    Interruption,
    Toy,
    ToyBatch,
    acoustic_recipe,
    assert_same,
    checkpoint_contents,
    interrupt,
    toy_trainer,
    write_recipe,
)


def train_with_interruptions(recipe, directory, stops):
    for index, after in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, AcousticTask, after)
            with pytest.raises(Interruption):
                train(recipe, directory, resume=index > 0)
        np.random.seed(99)  # what another process would have
    train(recipe, directory, resume=bool(stops))


# Four batches an epoch, two a step, two epochs; dropout, LayerDrop, batch norm, augmentation and averaging are on.
PARAKEET_RUN = acoustic_recipe(
    augment=AUGMENT, optim={"accumulate": 2}, run={"checkpoint_every": 1, "log_every": 1, "average_last": 2}
)
HUBERT_RUN = acoustic_recipe(
    encoder={"config": HUBERT}, augment={"gain_db": 6.0}, run={"checkpoint_every": 1, "log_every": 2}
)


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    recipe = write_recipe(folder / "recipe.yaml", corpus, PARAKEET_RUN)
    train(recipe, folder / "run")
    return recipe, folder / "run"


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param((2,), id="mid-epoch"),
        pytest.param((3,), id="mid-accumulation", marks=pytest.mark.slow),
        pytest.param((4,), id="epoch edge"),
        pytest.param((6,), id="second epoch", marks=pytest.mark.slow),
        pytest.param((3, 2, 1), id="three times"),
    ],
)
def test_a_resumed_run_ends_bit_for_bit_like_a_straight_one(uninterrupted, tmp_path, stops):
    recipe, straight = uninterrupted
    train_with_interruptions(recipe, tmp_path / "run", stops)
    assert_same(checkpoint_contents(tmp_path / "run"), checkpoint_contents(straight))
    exported = [folder / "model" / "model.safetensors" for folder in (straight, tmp_path / "run")]
    assert exported[0].read_bytes() == exported[1].read_bytes()


def test_masking_by_numpy_resumes_too(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, HUBERT_RUN)
    train(recipe, tmp_path / "straight")
    train_with_interruptions(recipe, tmp_path / "resumed", (2,))
    assert_same(checkpoint_contents(tmp_path / "resumed"), checkpoint_contents(tmp_path / "straight"))


def test_randomness_is_at_work(uninterrupted, tmp_path):
    # Or else the tests above prove little: another seed gives other weights, and dropout is on.
    train(uninterrupted[0], tmp_path / "other", overrides=["seed=2", "run.epochs=1"])
    first, other = checkpoint_contents(uninterrupted[1]), checkpoint_contents(tmp_path / "other")
    assert first.keys() >= {"model/model.ctc_heads.2.linear.weight", "random/cpu0"}
    assert not torch.equal(
        first["model/model.ctc_heads.2.linear.weight"], other["model/model.ctc_heads.2.linear.weight"]
    )


def test_the_seed_decides_the_initial_weights(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, acoustic_recipe(optim={"lr": 1e-12}, run={"epochs": 1}))
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(found))
        train(recipe, tmp_path / name, overrides=[f"seed={seed}"])
        found.append(checkpoint_contents(tmp_path / name)["model/model.encoder.model.subsampling.linear.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize(("accumulate", "stop"), crossed((2, 3, 1), (1, 4, 5, 6, 9, 14)))
def test_a_toy_resumes_wherever_it_stopped(tmp_path, accumulate, stop):
    settings = {"accumulate": accumulate, "checkpoint_every": 1, "log_every": 2, "average_last": 2}
    trainer, _ = toy_trainer(Toy(dropout=0.3), tmp_path / "straight", **settings)
    trainer.fit()

    task = Toy(dropout=0.3)
    task.stop_after = stop
    with pytest.raises(Interruption):
        toy_trainer(task, tmp_path / "resumed", **settings)[0].fit()
    trainer, lines = toy_trainer(Toy(dropout=0.3), tmp_path / "resumed", **settings)
    if stop < accumulate:
        with pytest.raises(TrainingError, match="no checkpoint"):
            trainer.resume()
        return
    trainer.resume()
    assert lines[-1].startswith("resumed from checkpoint-")
    trainer.fit()
    assert_same(checkpoint_contents(tmp_path / "resumed"), checkpoint_contents(tmp_path / "straight"))
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("straight", "resumed")]
    times = {"time", "time_shares"}
    last = [{key: value for key, value in json.loads(log[-1]).items() if key not in times} for log in logs]
    assert last[0] == last[1]


def test_a_finished_run_resumes_to_export_again(tmp_path):
    trainer, _ = toy_trainer(Toy(), tmp_path)
    trainer.fit()
    (tmp_path / "model").rmdir()
    task = Toy()
    trainer, _ = toy_trainer(task, tmp_path)
    trainer.resume()
    trainer.fit()
    assert task.losses == 0
    assert (tmp_path / "model").is_dir()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    trainer, _ = toy_trainer(Toy(), tmp_path)
    trainer.fit()
    (tmp_path / "checkpoints" / "checkpoint-00000015" / "model.safetensors").write_bytes(b"")
    trainer, lines = toy_trainer(Toy(), tmp_path)
    trainer.resume()
    assert lines[0].startswith("warning: ")
    assert "checkpoint-00000015: model.safetensors is damaged" in lines[0]
    assert lines[1] == "resumed from checkpoint-00000010: epoch 3, batch 0"
    trainer.fit()
    assert load_newest(tmp_path / "checkpoints")[0].name == "checkpoint-00000015"


def test_another_model_is_refused(tmp_path):
    toy_trainer(Toy(), tmp_path)[0].fit()
    task = Toy()
    task.module = nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.Dropout(0.0), nn.Linear(9, 1))
    with pytest.raises(TrainingError, match=r"do not fit the model at 0\.weight.*same recipe"):
        toy_trainer(task, tmp_path)[0].resume()


def test_the_best_epoch_is_exported(tmp_path):
    task = Toy(scores=(0.5, 0.2, 0.4, 0.3, 0.9))
    toy_trainer(task, tmp_path, epochs=4)[0].fit()
    assert_same(task.seen[4], task.seen[1])


def test_the_last_epoch_is_exported_if_it_is_the_best_or_nothing_is_scored(tmp_path):
    task = Toy(scores=(0.5, 0.4, 0.3, 0.9))
    toy_trainer(task, tmp_path / "a")[0].fit()
    assert_same(task.seen[3], task.seen[2])
    task = Toy()
    toy_trainer(task, tmp_path / "b")[0].fit()
    assert_same(dict(task.module.state_dict()), task.seen[2])


def test_the_last_epochs_are_averaged(tmp_path):
    task = Toy(scores=(0.1, 0.2, 0.4, 0.3, 0.9))
    toy_trainer(task, tmp_path, epochs=4, average_last=3)[0].fit()
    for name, exported in task.seen[4].items():
        torch.testing.assert_close(exported, torch.stack([task.seen[i][name] for i in (1, 2, 3)]).mean(0))


def test_evaluation_comes_every_so_often_and_at_the_end(tmp_path):
    task = Toy(scores=(0.5,) * 9)
    toy_trainer(task, tmp_path, epochs=5, evaluate_every=2)[0].fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "dev_score" in row] == [2, 4, 5]
    assert rows[-1]["final_score"] == 0.5


def test_metrics_are_means_since_the_last_line(tmp_path):
    task = Toy(num_batches=4)
    losses = []
    real = task.loss

    def loss(batch, position):
        value, parts = real(batch, position)
        losses.append(value.item())
        return value, parts

    task.loss = loss
    toy_trainer(task, tmp_path, epochs=1, log_every=2)[0].fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["epoch"] for row in rows] == [0.25, 0.75]
    for row, pair in zip(rows, (losses[:2], losses[2:]), strict=True):
        assert row["loss"] == pytest.approx(np.mean(pair))
        assert row["part"] == pytest.approx(np.mean(pair) / 2)
        assert row["grad_norm"] > 0
        assert row["lr"] == pytest.approx(0.01)


def test_accumulating_is_the_same_as_larger_batches(tmp_path):
    class Doubled(Toy):
        def batches(self, epoch):
            pairs = super().batches(epoch)
            return [a + b for a, b in zip(pairs[::2], pairs[1::2], strict=True)]

    separate, joined = Toy(num_batches=6), Doubled(num_batches=6)
    toy_trainer(separate, tmp_path / "a", accumulate=2)[0].fit()
    toy_trainer(joined, tmp_path / "b")[0].fit()
    for a, b in zip(separate.module.parameters(), joined.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Unreadable(Toy):
    """Nothing of some batches can be read."""

    bad: tuple[int, ...] = ()

    def load(self, indices, epoch):
        return None if self.batches(epoch).index(indices) in self.bad else super().load(indices, epoch)


def test_unreadable_batches_are_left_out(tmp_path):
    task = Unreadable()
    task.bad = (1, 4)
    trainer, _ = toy_trainer(task, tmp_path, accumulate=2, checkpoint_every=1, log_every=1)
    trainer.fit()
    assert task.losses == 9
    assert trainer.step == 6  # the last step of each epoch had nothing to learn from
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_what_could_not_be_read_is_known_after_resuming(tmp_path):
    def loader(*names):
        return SpeechLoader((), left_out={*names})

    task = Toy()
    task.speech, task.stop_after = (loader("b", "a"), loader()), 7
    trainer, _ = toy_trainer(task, tmp_path, checkpoint_every=1)
    with pytest.raises(Interruption):
        trainer.fit()
    other = Toy()
    other.speech = (loader("c"), loader())
    resumed, _ = toy_trainer(other, tmp_path, checkpoint_every=1)
    resumed.resume()
    assert [each.left_out for each in other.speech] == [{"a", "b", "c"}, set()]


def test_dev_is_decoded_knowing_what_any_process_could_not_read(tmp_path, monkeypatch):
    class Decoding(Toy):
        def evaluate(self):
            known.append({*self.speech[0].left_out})
            return super().evaluate()

    known, task = [], Decoding()
    task.speech = (SpeechLoader((), left_out={"a"}),)
    monkeypatch.setattr(processes, "gather", lambda value: [value, [["z"]]] if value == [["a"]] else [value])
    toy_trainer(task, tmp_path)[0].fit()
    assert known[0] == {"a", "z"}


def test_a_run_without_any_readable_batch_ends(tmp_path):
    task = Unreadable()
    task.bad = tuple(range(5))
    trainer, _ = toy_trainer(task, tmp_path, checkpoint_every=1, log_every=1)
    trainer.fit()
    assert trainer.step == 0
    assert not (tmp_path / "metrics.jsonl").exists()


class Diverging(Toy):
    """In the second epoch, the third batch has a bad loss, or a good loss with a bad gradient."""

    kind = "nan"

    def loss(self, batch, position):
        value, parts = super().loss(batch, position)
        if (position.epoch, position.batch) == (1, 2):
            match self.kind:
                case "gradient":
                    value = value + (self.module[0].weight * 0.0).square().sum().sqrt()
                case kind:
                    value = value * float(kind)
        return value, parts


KINDS = [("nan", "the loss is nan"), ("inf", "the loss is inf"), ("gradient", "the gradient is nan")]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("kind", "what"), KINDS)
def test_a_step_that_is_not_finite_is_skipped_counted_and_named(tmp_path, kind, what, accumulate):
    task = Diverging()
    task.kind = kind
    trainer, lines = toy_trainer(task, tmp_path, accumulate=accumulate, log_every=1)
    assert trainer.fit()
    steps = 3 * (5 if accumulate == 1 else 3)
    assert trainer.step == steps - 1
    assert trainer.guard.skipped == 1
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    batches = task.batches(1)
    utterances = [f"utt{i}" for i in ([*batches[2]] if accumulate == 1 else [*batches[2], *batches[3]])]
    assert rows == [
        {
            "epoch": 1,
            "batch": accumulate + 1,
            "step": steps // 3 + 2 // accumulate,
            "what": what,
            "utterances": utterances,
        }
    ]
    assert any(f"({', '.join(utterances)}): {what}; step skipped (1 so far)" in line for line in lines)
    assert all(bool(t.isfinite().all()) for t in checkpoint_contents(tmp_path).values() if t.is_floating_point())
    logged = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(map(math.isfinite, logged))


def test_the_rest_of_the_run_is_as_if_the_batch_had_not_been_there(tmp_path):
    class Lacking(Unreadable):
        def load(self, indices, epoch):
            self.bad = (2,) if epoch == 1 else ()
            return super().load(indices, epoch)

    toy_trainer(Diverging(), tmp_path / "skipped")[0].fit()
    toy_trainer(Lacking(), tmp_path / "lacking")[0].fit()
    assert_same(checkpoint_contents(tmp_path / "skipped"), checkpoint_contents(tmp_path / "lacking"))


class Dying(Toy):
    """From some step on, nothing is finite; the batch norm sees it too."""

    def __init__(self, good):
        super().__init__()
        self.module.append(nn.BatchNorm1d(1))
        self.good = good

    def loss(self, batch, position):
        if self.losses >= self.good:
            batch = ToyBatch(batch.inputs * math.inf, batch.targets, batch.utt_ids)
        return super().loss(batch, position)


@pytest.mark.parametrize("good", [0, 7])
def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path, good):
    task = Dying(good)
    trainer, _ = toy_trainer(task, tmp_path, checkpoint_every=1)
    trainer.guard.max_in_a_row = 3
    with pytest.raises(TrainingError, match=r"the loss is nan, and so it was in 3 steps in a row; .*skipped\.jsonl"):
        trainer.fit()
    assert trainer.guard.skipped == 3
    assert all(bool(t.isfinite().all()) for t in task.module.state_dict().values())
    if good:
        path, checkpoint, damaged = load_newest(tmp_path / "checkpoints")
        assert path.name == "checkpoint-00000007"
        assert not damaged
        assert all(bool(t.isfinite().all()) for t in checkpoint.tensors["model"].values())


def test_too_large_a_share_of_skipped_steps_ends_the_run(tmp_path):
    class Shaky(Toy):
        def loss(self, batch, position):
            value, parts = super().loss(batch, position)
            return value * (math.nan if self.losses % 3 == 0 else 1.0), parts

    with pytest.raises(TrainingError, match=r"so it was in 33 % of the steps"):
        toy_trainer(Shaky(), tmp_path / "a", epochs=40)[0].fit()
    trainer, _ = toy_trainer(Shaky(), tmp_path / "b", epochs=40)
    trainer.guard.max_fraction = 0.5
    trainer.fit()
    assert trainer.guard.skipped == 66


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer, _ = toy_trainer(Toy(), tmp_path)
    trainer.fit()
    trainer.task.module[0].bias.data[3] = math.inf
    with pytest.raises(TrainingError, match=r"step 15: 0\.bias is no longer finite"):
        trainer._save()


def test_many_names_are_cut_short_and_none_are_needed(tmp_path):
    names = tuple(f"u{i}" for i in range(20))
    for folder, utt_ids, expected in (
        ("a", names, "batch 2 (u0, u1, u2, u3, u4, u5, u6, u7, ...): "),
        ("b", (), "batch 2: "),
    ):
        task = Diverging()
        task.load = lambda indices, _, t=task, n=utt_ids: ToyBatch(t.inputs[indices], t.targets[indices], n)
        trainer, lines = toy_trainer(task, tmp_path / folder)
        trainer.fit()
        assert any(f"warning: epoch 2, {expected}the loss is nan" in line for line in lines)


def test_utterances_of_a_real_batch_are_named(corpus, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, acoustic_recipe(run={"epochs": 6}))
    real = AcousticTask.loss
    monkeypatch.setattr(
        AcousticTask, "loss", lambda self, batch, position: (real(self, batch, position)[0] * math.nan, {})
    )
    with pytest.raises(TrainingError, match=r"epoch \d, batch \d \(\d\.wav(, \d\.wav)?\): the loss is nan"):
        train(recipe, tmp_path / "run")


def test_a_run_stops_when_asked_and_goes_on_exactly(tmp_path):
    settings = {"accumulate": 2, "average_last": 2}
    toy_trainer(Toy(dropout=0.3), tmp_path / "straight", **settings)[0].fit()
    for after in range(1, 9):
        folder = tmp_path / str(after)
        trainer, lines = toy_trainer(Toy(dropout=0.3), folder, **settings)
        trainer.stop = lambda t=trainer, n=after: t.step >= n
        assert trainer.fit() is False
        assert trainer.step == after
        assert lines[-1] == f"stopped on request after step {after}; the checkpoint is written, go on with --resume"
        trainer, _ = toy_trainer(Toy(dropout=0.3), folder, **settings)
        trainer.resume()
        assert trainer.fit() is True
        assert_same(checkpoint_contents(folder), checkpoint_contents(tmp_path / "straight"))


def test_training_ends_early_when_dev_does_not_improve(tmp_path):
    scores = (0.9, 0.5, 0.7, 0.6, 0.4)
    task = Toy(scores=(*scores[:4], 0.55))
    trainer, lines = toy_trainer(task, tmp_path / "straight", epochs=9, patience=2)
    assert trainer.fit()
    assert trainer.epoch == 4
    assert "dev has not improved in 2 evaluations; the training ends here" in lines
    assert_same(task.module.state_dict(), task.seen[1])
    # The evaluation before the stop is remembered.
    trainer, _ = toy_trainer(Toy(scores=scores), tmp_path / "resumed", epochs=9, patience=2)
    trainer.stop = lambda: trainer.epoch == 3
    trainer.fit()
    task = Toy(scores=scores[3:])
    trainer, _ = toy_trainer(task, tmp_path / "resumed", epochs=9, patience=2)
    trainer.resume()
    trainer.fit()
    assert trainer.epoch == 4
    assert_same(checkpoint_contents(tmp_path / "resumed"), checkpoint_contents(tmp_path / "straight"))


def test_resuming_from_the_weights_alone(tmp_path):
    trainer, _ = toy_trainer(Toy(dropout=0.3), tmp_path, checkpoint_every=1)
    trainer.stop = lambda: trainer.step >= 7
    trainer.fit()
    newest = tmp_path / "checkpoints" / "checkpoint-00000007"
    expected = load_newest(tmp_path / "checkpoints")[1].tensors["model"]
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-00000006")
    (newest / "optimizer.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"optimizer\.safetensors is missing.*; try --weights-only"):
        toy_trainer(Toy(), tmp_path)[0].resume()
    trainer, lines = toy_trainer(Toy(dropout=0.3), tmp_path)
    trainer.resume(weights_only=True)
    assert (trainer.epoch, trainer.batch, trainer.step) == (1, 2, 7)
    assert_same(weights(trainer.task.module), expected)
    assert not trainer.optimizer.state
    assert lines[-1] == "resumed from checkpoint-00000007, its weights only: epoch 2, batch 2"
    assert trainer.fit()


def test_metrics_after_the_checkpoint_are_dropped_when_resuming(tmp_path):
    trainer, _ = toy_trainer(Toy(), tmp_path, log_every=1)
    trainer.fit()
    straight = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-00000015")
    with (tmp_path / "metrics.jsonl").open("a") as out:
        out.write('{"step": 3')
    trainer, _ = toy_trainer(Toy(), tmp_path, log_every=1)
    trainer.resume()
    trainer.fit()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == straight


def test_what_is_wholly_frozen_is_refused(tmp_path):
    task = Toy()
    task.module.requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing learns"):
        toy_trainer(task, tmp_path)


def test_reading_runs_ahead_and_its_errors_arrive(corpus, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, acoustic_recipe())

    def batch(_, __, *, epoch=None):
        raise Interruption(f"epoch {epoch}")

    monkeypatch.setattr(SpeechLoader, "batch", batch)
    with pytest.raises(Interruption, match="epoch 0"):
        train(recipe, tmp_path / "run")


def test_shared_weights_are_kept_once():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    found = weights(net)
    assert set(found) == {"a.weight", "a.bias", "b.bias"}
    other = {name: torch.ones_like(tensor) for name, tensor in found.items()}
    load_weights(found, other, where="x")
    assert torch.equal(net["b"].weight, torch.ones(2, 2))
    assert net["b"].weight is net["a"].weight
