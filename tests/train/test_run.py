import json
import os
import platform
import shutil
import signal
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import kikitori
from kikitori.errors import DataError, KikitoriError, TrainingError
from kikitori.io.files import DiskFullError, locked
from kikitori.train.loop.checkpoint import load_newest
from kikitori.train.recipe.recipe import load_recipe
from kikitori.train.run import RunLog, _save_recipe, dry_run, train
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from tests.tiny import tiny_waveform
from tests.train.helpers import (
    TEXTS,
    acoustic_recipe,
    speech_llm_recipe,
    text_recipe,
    write_corpus,
    write_recipe,
)

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.fixture(scope="module")
def run(corpus):
    recipe = write_recipe(corpus / "recipe.yaml", corpus, speech_llm_recipe(run={"log_every": 1}))
    train(recipe, corpus / "run", overrides=["seed=5"])
    return corpus / "run"


def test_a_run_folder_holds_what_it_promises(run):
    names = {
        ".lock",
        "recipe.yaml",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "checkpoints",
        "curves.png",
        "model",
    }
    assert {path.name for path in run.iterdir()} == names
    log = (run / "log.txt").read_text()
    for line in (
        "label units: ",
        "train: 7 utterances",
        "model.llm: ",
        "epoch 2/2 dev: wer_greedy",
        "model written to",
    ):
        assert line in log


def test_the_card_says_what_was_trained_and_measured(run):
    card = ModelCard.load(run / "model" / "README.md")
    final = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    scores = {name.split("_", 1)[1]: value for name, value in final.items() if name.startswith(("dev_", "final_"))}
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        name: round(value, 4) for name, value in scores.items()
    }
    assert (card.data.language, card.data.library_name) == ("en", "kikitori")
    assert card.data.pipeline_tag == "automatic-speech-recognition"
    assert (card.data.license, card.data.base_model) == (None, None)
    assert "trained on 7 utterances (language: en)" in card.text
    assert str(run.parent) not in str(card)


def test_the_recipe_written_is_the_recipe_run(run, corpus):
    again = load_recipe(run / "recipe.yaml")
    assert again == load_recipe(corpus / "recipe.yaml", ["seed=5"])
    assert again.seed == 5


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_committed_recipes_survive_writing(path, tmp_path):
    recipe = load_recipe(path, [f"data_root={tmp_path}"])
    assert recipe.data_root == str(tmp_path)
    assert recipe.run.epochs >= 1
    _save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_the_environment_is_written(run):
    found = json.loads((run / "environment.json").read_text())
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["kikitori"] == kikitori.__version__
    assert isinstance(found["argv"], list)
    assert found["data"].pop("sha256") == load_newest(run / "checkpoints")[1].state["provenance"]["data"]
    assert found["data"] == {"utterances": 7, "with_recognized_text": 0}


def test_checkpoints_say_where_they_come_from(run):
    _, checkpoint, _ = load_newest(run / "checkpoints")
    origin = checkpoint.state["provenance"]
    assert origin["recipe"]["seed"] == 5
    assert origin["recipe"]["optim"]["lr"] == 0.01
    assert origin["environment"]["versions"]["torch"] == torch.__version__
    assert "git" in origin["environment"]
    assert len(origin["data"]) == 64
    assert origin["counts"] == {"utterances": 7, "with_recognized_text": 0}


def test_the_exported_model_transcribes(run):
    recognizer = kikitori.load(run / "model")
    transcript = recognizer.transcribe(run.parent / "1.wav")
    assert isinstance(transcript.text, str)
    assert transcript.duration == pytest.approx(0.9)
    assert recognizer.loaded.trained_on.language == "en"
    assert recognizer.loaded.trained_on.max_seconds == pytest.approx(1.4)
    rates = [len(text) + 1 for text in TEXTS]  # a word mark begins each text
    assert recognizer.loaded.trained_on.labels_per_second == pytest.approx(
        max(rate / (0.8 + 0.1 * index) for index, rate in enumerate(rates))
    )
    assert isinstance(recognizer.transcribe(tiny_waveform(0.5), decoding="ctc_greedy").text, str)


def test_a_folder_in_use_is_refused(run, corpus):
    before = (run / "log.txt").read_bytes()
    with pytest.raises(TrainingError, match=r"the run folder is not empty; use --resume"):
        train(corpus / "recipe.yaml", run)
    assert (run / "log.txt").read_bytes() == before


def test_an_empty_folder_is_fine_and_resuming_needs_a_run(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, text_recipe(run={"epochs": 1}))
    with pytest.raises(TrainingError, match="no run to resume"):
        train(recipe, tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match=r"--weights-only: .*add --resume"):
        train(recipe, tmp_path / "run", weights_only=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "tokenizer.json").is_file()


def test_a_run_killed_before_its_first_checkpoint_begins_again(corpus, run, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(run={"log_every": 1}))
    left = tmp_path / "run"
    left.mkdir()
    shutil.copy(run / "recipe.yaml", left)
    (left / "metrics.jsonl").write_text('{"epoch": 0.1, "step": 1, "loss": 1.0}\n{"epoch": 0')
    train(recipe, left, overrides=["seed=5"], resume=True)
    assert "the run begins again" in (left / "log.txt").read_text()
    assert _metrics(left) == _metrics(run)
    assert _model(left) == _model(run)


def _metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in {"time", "time_shares"}} for row in rows]


def _model(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_sigterm_saves_and_ends_well(corpus, run, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(run={"log_every": 1}))
    real, count = SpeechLLMTask.loss, 0

    def loss(self, batch, position):
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, position)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(SpeechLLMTask, "loss", loss)
        assert train(recipe, tmp_path / "run", overrides=["seed=5"]) is False
    assert signal.getsignal(signal.SIGTERM) is before
    assert count == 3
    assert not (tmp_path / "run" / "model").exists()
    assert "stopped on request after step 3" in (tmp_path / "run" / "log.txt").read_text()
    assert train(recipe, tmp_path / "run", overrides=["seed=5"], resume=True) is True
    assert _model(tmp_path / "run") == _model(run)
    assert _metrics(tmp_path / "run") == _metrics(run)


def test_a_second_run_in_the_folder_is_refused(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, text_recipe())
    (tmp_path / "run").mkdir()
    for resume in (False, True):
        with locked(tmp_path / "run"), pytest.raises(DataError, match="another run is writing to this folder"):
            train(recipe, tmp_path / "run", resume=resume)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    train(recipe, tmp_path / "run")  # the lock is gone with its holder


def test_a_failed_export_leaves_the_model_before(run, corpus, monkeypatch, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(run={"log_every": 1}))
    monkeypatch.setattr("kikitori.train.tasks.speech_llm.save_model", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(recipe, folder, overrides=["seed=5"], resume=True)
    assert _model(folder) == _model(run)
    assert [path.name for path in folder.glob(".*")] == [".lock"]


def test_a_changed_recipe_or_corpus_is_named_when_resuming(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    write_corpus(tmp_path / "corpus", [{"audio_filepath": "1.wav", "duration": 0.9, "text": "more", "split": "train"}])
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "corpus", speech_llm_recipe(run={"log_every": 1}))
    train(recipe, folder, overrides=["seed=5", "optim.lr=0.02", "units.kind=run", f"units.path={run}"], resume=True)
    log = (folder / "log.txt").read_text()
    assert "warning: recipe.optim.lr is 0.02, and was 0.01 in the checkpoint" in log
    assert "warning: the training data are not those of the checkpoint" in log
    assert "environment." not in log


def test_dry_run_of_a_speech_llm(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(encoder={"policy": "frozen"}))
    before = sorted(tmp_path.rglob("*"))
    logged: list[str] = []
    lines = dry_run(recipe, ["run.epochs=3"], log=logged.append)
    assert logged == lines
    assert sorted(tmp_path.rglob("*")) == before
    parts = {line.partition(":")[0]: line for line in lines}
    assert parts["model.acoustic"].endswith("M trainable")
    assert {"model.llm", "model.bridge", "largest batch", "LLM input"} <= parts.keys()
    assert " speech positions, " in parts["LLM input"]
    (share,) = [
        line.removeprefix("batches per epoch: 4, epochs: 3, padding: ") for line in lines if "epochs: 3" in line
    ]
    assert 0.0 < float(share.removesuffix("%")) < 15.0
    assert lines[-1].startswith("loss before training: ")
    assert " text " in lines[-1]
    assert " ctc2 " in lines[-1]


def test_dry_run_of_ctc_compression(corpus, tmp_path):
    bridge = {"kind": "ctc_compress", "stride": 1, "blanks": "keep", "repeats": "average"}
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, speech_llm_recipe(bridge=bridge))
    lines = dry_run(recipe)
    (described,) = [line for line in lines if line.startswith("LLM input: ")]
    rate = float(described.split("; ")[1].removesuffix(" positions per second of speech"))
    assert 0.0 < rate <= 25.0  # frames of 40 ms
    assert "positions_per_second " in lines[-1]  # of the loss, with dropout
    with pytest.raises(DataError, match=r"\.wav: \d\.\d s of speech take .* the LLM has 4 positions; leave it out"):
        dry_run(recipe, ["llm.config.max_position_embeddings=4"])


def test_ctc_compression_is_trained_exported_and_used(corpus, tmp_path):
    bridge = {"kind": "ctc_compress", "stride": 1}
    recipe = write_recipe(
        tmp_path / "recipe.yaml", corpus, speech_llm_recipe(bridge=bridge, run={"epochs": 1, "log_every": 1})
    )
    train(recipe, tmp_path / "run")
    assert " positions_per_second " in (tmp_path / "run" / "log.txt").read_text()
    assert all("positions_per_second" in row for row in _metrics(tmp_path / "run") if "loss" in row)
    recognizer = kikitori.load(tmp_path / "run" / "model")
    assert recognizer.loaded.model.config.bridge == "ctc_compress"
    (hypothesis,) = recognizer.recognize([tiny_waveform(0.9)])
    assert 1 <= hypothesis.speech_positions <= 23


def test_dry_runs_of_the_other_tasks(corpus, tmp_path):
    for values, component in ((acoustic_recipe(), "model.encoder: "), (text_recipe(), "llm.model: ")):
        lines = dry_run(write_recipe(tmp_path / "recipe.yaml", corpus, values))
        assert any(line.startswith(component) for line in lines)
        assert any(line.startswith("largest batch: ") for line in lines)


def test_dry_run_names_its_seed(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, acoustic_recipe())
    assert dry_run(recipe)[-1] == dry_run(recipe)[-1]
    assert dry_run(recipe)[-1] != dry_run(recipe, ["seed=2"])[-1]


def test_unreadable_files_stop_or_are_named_once(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "0.wav").write_bytes(b"RIFF no audio")  # in train and dev
    stop = write_recipe(tmp_path / "stop.yaml", tmp_path, acoustic_recipe())
    with pytest.raises(DataError, match=r"0\.wav.*on_error=skip"):
        train(stop, tmp_path / "stop")
    skip = write_recipe(tmp_path / "skip.yaml", tmp_path, acoustic_recipe(data={"on_error": "skip"}, run={"epochs": 3}))
    train(skip, tmp_path / "skip")
    log = (tmp_path / "skip" / "log.txt").read_text()
    assert log.count("0.wav") == 1
    assert "epoch 3/3 dev" in log


def test_unreadable_dev_files_are_named_and_none_left_is_an_error(tmp_path):
    manifest = write_corpus(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for number, row in enumerate(row for row in rows if row["split"] == "dev"):
        row["audio_filepath"] = f"dev{number}.wav"
        (tmp_path / row["audio_filepath"]).write_bytes(b"RIFF no audio")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path, acoustic_recipe(data={"on_error": "skip"}, run={"epochs": 1}))
    with pytest.raises(DataError, match="no dev utterance can be scored"):
        train(recipe, tmp_path / "none")
    shutil.copy(tmp_path / "0.wav", tmp_path / "dev0.wav")
    train(recipe, tmp_path / "one", overrides=["run.epochs=2"])
    assert (tmp_path / "one" / "log.txt").read_text().count("dev1.wav") == 1


def test_texts_too_long_for_ctc_are_named_once(tmp_path):
    rows = [{"audio_filepath": "1.wav", "duration": 0.9, "text": "a cat " * 30, "split": "train", "id": "wordy"}]
    write_corpus(tmp_path, rows)
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path, acoustic_recipe(run={"epochs": 3}))
    train(recipe, tmp_path / "run")
    assert "labels that do not fit into their frames: 1 utterance, such as wordy" in dry_run(recipe)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("wordy: the text has more labels than the audio has frames") == 1


def test_other_processes_write_nothing(corpus, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, acoustic_recipe())
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("kikitori.train.run.build_task", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_recipe_that_does_not_load_makes_no_folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: none\n")
    with pytest.raises(KikitoriError):
        train(tmp_path / "recipe.yaml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_log_goes_to_the_screen_and_the_file(tmp_path, capsys):
    log = RunLog(tmp_path / "log.txt")
    log("début")
    log("second")
    assert capsys.readouterr().err == "début\nsecond\n"
    assert [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["début", "second"]


def test_a_log_on_a_full_disk_is_named():
    with pytest.raises(DiskFullError, match=r"/dev/full: cannot be written: .*; make room"):
        RunLog(Path("/dev/full"))("line")
