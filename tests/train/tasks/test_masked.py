import json

import numpy as np
import pytest
import soundfile
import torch

from kikitori.errors import ConfigError, DataError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.folder import is_recogniser, load_model
from kikitori.train.build import task as building
from kikitori.train.build.acoustic import build_encoder
from kikitori.train.build.task import build_task
from kikitori.train.losses.frame_targets import LayerStates
from kikitori.train.run import dry_run, train
from kikitori.train.tasks import speech_batches
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.masked import DEV_MASKS, NOTHING, MaskedPredictionTask
from kikitori.train.tasks.masked_predictor import draw_mask
from tests.tiny import tiny_waveform
from tests.train.helpers import (
    AUGMENT,
    HUBERT,
    PARAKEET,
    Interruption,
    acoustic_recipe,
    assert_same,
    checkpoint_contents,
    interrupt,
    make_recipe,
    masked_recipe,
    speech_llm_recipe,
    write_corpus,
    write_recipe,
)

START = BatchPosition(0, 0, 0.0)
PLAIN = {**PARAKEET, "dropout": 0.0, "layerdrop": 0.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    row = {"audio_filepath": "6.wav", "duration": 1.4, "text": None, "id": "untranscribed"}
    write_corpus(folder, [{**row, "split": split} for split in ("train", "dev")])
    return folder


@pytest.fixture(scope="module")
def run(corpus):
    recipe = write_recipe(corpus / "masked.yaml", corpus, masked_recipe(run={"epochs": 1, "log_every": 1}))
    train(recipe, corpus / "run")
    return corpus / "run"


def test_speech_without_transcripts_takes_part(build):
    task = build(masked_recipe())
    assert sorted(i for batch in task.batches(0) for i in batch) == list(range(8))
    batch = task.load([7], 0)
    assert batch.utt_ids == ("untranscribed",)
    loss, parts = task.loss(batch, START)
    loss.backward()
    assert parts["masked"] == loss.item()
    assert 0.0 <= parts["accuracy"] <= 1.0
    task.module.eval()  # LayerDrop would leave layers out
    task.loss(batch, START)[0].backward()
    assert all(parameter.grad is not None for parameter in task.module.parameters())


def test_masks_and_targets_follow_from_seed_epoch_and_utterance_alone(build):
    task, again = (build(masked_recipe(augment=AUGMENT)) for _ in range(2))
    alone = {index: again.load([index], 1) for index in reversed(range(8))}
    together = task.load(list(range(8)), 1)
    for row, index in enumerate(range(8)):
        frames = alone[index].masks.shape[1]
        assert torch.equal(together.masks[row, :frames], alone[index].masks[0])
        assert torch.equal(together.targets[row, :frames], alone[index].targets[0])
        assert not together.masks[row, frames:].any()
        assert (together.targets[row, frames:] == NOTHING).all()
        assert (together.targets[row, :frames] != NOTHING).all()
    other, seeded = task.load(list(range(8)), 2), build(masked_recipe(seed=3)).load(list(range(8)), 1)
    for changed in (other, seeded):
        width = min(changed.masks.shape[1], together.masks.shape[1])
        assert not torch.equal(changed.masks[:, :width], together.masks[:, :width])


def test_targets_are_those_of_the_speech_without_noise(build):
    clean = build(masked_recipe()).load(list(range(8)), 0)
    noisy = build(masked_recipe(augment={"noise_probability": 1.0, "noise_snr_db": [0.0, 1.0], "gain_db": 12.0}))
    loud = noisy.load(list(range(8)), 0)
    assert not torch.equal(clean.speech.waveforms, loud.speech.waveforms)
    assert torch.equal(clean.targets, loud.targets)
    faster = build(masked_recipe(augment={"speeds": [1.25]})).load([0], 0)
    frames = faster.targets.shape[1]
    assert frames == pytest.approx(clean.targets[0, :, 0].ne(NOTHING).sum() / 1.25, abs=1)
    # Every target has moved with its time.
    places = ((np.arange(2 * frames) + 0.5) * 1.25).astype(int).clip(max=2 * 20 - 1)
    moved = clean.targets[0].flatten()[places]
    assert (moved == faster.targets[0].flatten()).float().mean() > 0.8


def reference_loss(task, batch, row):
    """Sum and number of the cross-entropies of one utterance's hidden outputs, one by one; and of the others."""
    length = int(batch.speech.lengths[row])
    inputs, lengths = task.encoder.features(batch.speech.waveforms[row : row + 1, :length], torch.tensor([length]))
    for frame in range(int(task.encoder.output_lengths(torch.tensor(length)))):
        if batch.masks[row, frame]:
            each = task.encoder.inputs_per_frame
            inputs[0, frame * each : (frame + 1) * each] = task.predictor.mask.detach()
    frames = task.encoder.encode(inputs, lengths).frames[0]
    total, count = 0.0, 0
    for frame, state in enumerate(frames):
        scores = task.predictor.head(state).view(2, 8).log_softmax(-1)
        for output in range(2):
            if batch.masks[row, frame]:
                total, count = total - scores[output, batch.targets[row, frame, output]].item(), count + 1
    return total, count


def test_the_loss_is_the_cross_entropy_of_each_utterance_alone(build):
    task = build(masked_recipe(encoder={"config": PLAIN}))
    task.module.eval()
    task.predictor.mask.data.fill_(0.3)
    batch = task.load([0, 7, 3], 0)
    with torch.inference_mode():
        loss, parts = task.loss(batch, START)
        sums = [reference_loss(task, batch, row) for row in range(3)]
    expected = sum(total for total, _ in sums) / sum(count for _, count in sums)
    assert parts["masked"] == pytest.approx(expected, rel=1e-4)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_dev_scores_depend_on_neither_batches_nor_time(build, monkeypatch):
    task = build(masked_recipe())
    task.module.eval()
    scores = task.evaluate()
    assert list(scores) == ["masked_loss", "masked_accuracy", "target_perplexity", "prediction_perplexity"]
    assert len(task.dev.utterances) == 3
    monkeypatch.setattr(speech_batches, "EVALUATION_BATCH", 1)
    assert task.evaluate() == pytest.approx(scores, rel=1e-5)
    total, count = 0.0, 0
    with torch.inference_mode():
        for index in range(3):
            seeds = (task.recipe.seed, index, DEV_MASKS)
            batch = task._masked(task.dev.batch([index]), task.dev_labels, lambda _, seeds=seeds: seeds)
            mask = draw_mask(batch.masks.shape[1], 3, 0.5, np.random.default_rng(seeds))
            assert batch.masks[0].tolist() == mask.tolist()
            of_utterance, targets = reference_loss(task, batch, 0)
            total, count = total + of_utterance, count + targets
    assert scores["masked_loss"] == pytest.approx(total / count, rel=1e-4)
    assert 1.0 <= scores["target_perplexity"] <= 8.0
    assert 1.0 <= scores["prediction_perplexity"] <= 8.0
    assert build(masked_recipe(data={"dev": []})).evaluate() == {}


def tones(folder, count):
    """Recordings of three notes of 0.4 s or longer: what is hidden of a note is told by the rest of it."""
    generator, rows = np.random.default_rng(0), []
    for index in range(count):
        pitches = generator.permutation([200.0, 600.0, 1800.0, 5000.0]).repeat(6400)
        waveform = 0.3 * np.sin(2 * np.pi * np.cumsum(pitches) / SAMPLE_RATE)
        soundfile.write(folder / f"{index}.wav", waveform.astype(np.float32), SAMPLE_RATE)
        split = "dev" if index < 4 else "train"
        rows.append({"audio_filepath": f"{index}.wav", "duration": 1.6, "text": None, "split": split})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_hidden_notes_are_told_by_what_is_left_of_them(tmp_path):
    tones(tmp_path, 12)
    values = masked_recipe(
        encoder={"config": PLAIN},
        data={"batch_seconds": 13.0, "max_batch_size": 8},
        targets={"clusters": 4, "upsample": 1},
    )
    torch.manual_seed(0)
    task = build_task(make_recipe(tmp_path, tmp_path, values), lambda _: None)
    task.module.eval()
    before = task.evaluate()
    assert before["target_perplexity"] > 2.5
    assert before["masked_loss"] > 0.9 * np.log(before["target_perplexity"])
    task.module.train()
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=0.01)
    for epoch in range(60):
        for number, indices in enumerate(task.batches(epoch)):
            task.loss(task.load(indices, epoch), BatchPosition(epoch, number, 0.0))[0].backward()
            optimizer.step()
            optimizer.zero_grad()
    task.module.eval()
    after = task.evaluate()
    assert after["masked_loss"] < 0.75 * np.log(after["target_perplexity"])
    assert after["masked_accuracy"] > 0.7
    assert after["prediction_perplexity"] > 2.0


MASKED_RUN = masked_recipe(
    augment=AUGMENT,
    optim={"accumulate": 2},
    run={"checkpoint_every": 1, "log_every": 1, "average_last": 2},
)


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_like_a_straight_one(corpus, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, MASKED_RUN)
    train(recipe, tmp_path / "straight")
    for resume, stop in ((False, 3), (True, 4)):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, MaskedPredictionTask, stop)
            with pytest.raises(Interruption):
                train(recipe, tmp_path / "resumed", resume=resume)
        np.random.seed(99)  # what another process would have
    # Clusters are the checkpoint's, whatever k-means would find now.
    real = building.fit_clusters
    monkeypatch.setattr(building, "fit_clusters", lambda *given: real(*given) + 1.0)
    train(recipe, tmp_path / "resumed", resume=True)
    assert_same(checkpoint_contents(tmp_path / "resumed"), checkpoint_contents(tmp_path / "straight"))


def test_an_acoustic_model_starts_from_the_encoder(run, corpus, tmp_path):
    trained = checkpoint_contents(run)
    for values in (
        acoustic_recipe(encoder={"init": str(run)}),
        speech_llm_recipe(encoder={"init": str(run / "model")}),
        masked_recipe(encoder={"init": str(run)}),
    ):
        task = build_task(make_recipe(tmp_path, corpus, values), lambda _: None)
        encoder = task.encoder if isinstance(task, MaskedPredictionTask) else task.acoustic.encoder
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(tensor, trained[f"model/model.encoder.{name}"]), name
    start = {"init": str(run / "model"), "random": True}
    random = build_encoder(make_recipe(tmp_path, corpus, acoustic_recipe(encoder=start)).encoder)
    assert random.dim == 16
    assert not torch.equal(random.state_dict()[name], trained[f"model/model.encoder.{name}"])


def test_its_model_is_no_recogniser_and_the_error_says_what_it_is(run):
    assert not is_recogniser(run / "model")
    with pytest.raises(ModelError, match=r"speech encoder alone .*writes no text; .*encoder\.init"):
        load_model(run / "model")


def test_a_second_iteration_predicts_clusters_of_the_first_ones_states(run, corpus, tmp_path):
    lines = []
    values = masked_recipe(targets={"clusters": 5, "upsample": 1, "run": str(run), "layer": 1})
    task = build_task(make_recipe(tmp_path, corpus, values), lines.append)
    assert task.predictor.means.shape == (5, 16)
    assert any(line.startswith("targets: 5 clusters from ") for line in lines)
    assert isinstance(task.labels.features, LayerStates)
    rows = torch.from_numpy(task.labels.features(task.train.read(4)))
    expected = torch.cdist(rows, torch.from_numpy(task.predictor.means)).argmin(dim=1)
    assert task.load([4], 0).targets.flatten().tolist() == expected.tolist()
    teacher = task.labels.features.encoder
    assert not any(name.startswith("teacher") for name, _ in task.module.named_children())
    assert {id(p) for p in teacher.parameters()}.isdisjoint(id(p) for p in task.module.parameters())
    task.module.train()
    assert not teacher.training
    with pytest.raises(ConfigError, match=r"targets\.layer: the run has layers 1 to 2"):
        build_task(make_recipe(tmp_path, corpus, masked_recipe(targets={"run": str(run), "layer": 3})), print)


def test_the_log_says_how_clusters_are_used(run):
    log = (run / "log.txt").read_text()
    assert "targets: 8 clusters from " in log
    assert " in use, perplexity " in log
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["accuracy"] <= 1 for row in rows if "masked" in row)
    (dev,) = [row for row in rows if "dev_masked_loss" in row]
    assert 1.0 < dev["dev_target_perplexity"] <= 8.0
    assert (run / "curves.png").is_file()


def test_encoders_of_waveforms_are_refused(build):
    with pytest.raises(ConfigError, match=r"type .hubert. reads waveforms; .*use a FastConformer"):
        build(masked_recipe(encoder={"config": HUBERT}))


def test_a_dry_run_describes_it(corpus, tmp_path):
    lines = dry_run(write_recipe(tmp_path / "recipe.yaml", corpus, masked_recipe()))
    assert any(line.startswith("model.encoder: ") for line in lines)
    assert any(line.startswith("model.head: ") for line in lines)
    (hidden,) = [line for line in lines if line.startswith("hidden: ")]
    assert "of 8" in hidden
    assert lines[-1].startswith("loss before training: ")


def test_components_learn_as_the_recipe_says(build):
    task = build(masked_recipe(encoder={"lr_factor": 0.5, "unfreeze_at": 3}))
    names = [name for name, _ in task.module.named_parameters()]
    heads = [name for name in names if task.component(name) == "heads"]
    assert heads == ["model.mask", "model.head.weight", "model.head.bias"]
    assert {(task.lr_factor(name), task.unfreeze_at(name)) for name in heads} == {(1.0, 0)}
    assert {(task.lr_factor(n), task.unfreeze_at(n)) for n in names if n not in heads} == {(0.5, 3)}


def test_unreadable_files_are_left_out_and_told_once(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "3.wav").write_text("no audio")
    task = build_task(make_recipe(tmp_path, tmp_path, masked_recipe(data={"on_error": "skip"})), lambda _: None)
    assert task.load([3], 0) is None
    assert task.load([2, 3], 0).speech.indices == (2,)
    assert [line.endswith("left out") for line in task.remarks()] == [True]
    assert task.remarks() == []
    for number in (0, 1):
        (tmp_path / f"{number}.wav").write_text("no audio")
    with pytest.raises(DataError, match="no dev utterance can be read"):
        task.evaluate()


def test_adapters_are_merged_into_what_is_exported(run, corpus, tmp_path):
    lora = {"init": str(run), "policy": "lora", "lora": {"rank": 2, "targets": ["q_proj"]}}
    task = build_task(make_recipe(tmp_path, corpus, masked_recipe(encoder=lora)), lambda _: None)
    assert len(task.remarks()) == 1  # they do nothing yet
    for name, parameter in task.module.named_parameters():
        if "lora" in name:
            parameter.data += 0.3
    task.export(tmp_path / "model")
    exported = build_encoder(
        make_recipe(tmp_path, corpus, acoustic_recipe(encoder={"init": str(tmp_path / "model")})).encoder
    )
    task.module.eval()
    waveform, length = torch.from_numpy(tiny_waveform(0.8))[None], torch.tensor([12800])
    with torch.inference_mode():
        torch.testing.assert_close(exported.eval()(waveform, length).frames, task.encoder(waveform, length).frames)
