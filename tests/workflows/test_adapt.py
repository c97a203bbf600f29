import json
import os
import shutil
import signal

import pytest
import torch

from kikitori import loading, recognizer
from kikitori.cli.common import WRONG_CALL
from kikitori.data.manifest import read_manifest
from kikitori.model.adapters.lora_folder import LORA_WEIGHTS
from kikitori.scoring.metrics import ErrorCounts, char_errors, word_errors
from kikitori.text.normalize import normalize
from kikitori.text.words import count_fillers
from kikitori.train.tasks.adaptation import AdaptationTask
from kikitori.workflows import adapt as adaptation
from tests.commands import call
from tests.tiny import save_tiny, tiny_waveform
from tests.train.helpers import write_corpus

SETTINGS = ("run.epochs=2", "optim.lr=0.05", "data.batch_seconds=3.0", "run.device=cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    spoken = {"audio_filepath": "3.wav", "duration": 1.1, "text": "um two cats uh", "language": "en", "split": "old"}
    return write_corpus(folder, [spoken, {**spoken, "audio_filepath": "4.wav", "text": "the bird"}])


KEEP = ("--on-runaway", "keep")  # a random LLM writes nothing that its CTC head hears


def arguments(base, manifest):
    new = ("--data", manifest, "--split", "train", "--dev", manifest, "--dev-split", "dev")
    old = ("--replay", manifest, "--replay-split", "old", "--source", manifest, "--source-split", "old")
    return ("adapt", "--model", base, *new, *old)


@pytest.fixture(scope="module")
def done(base, manifest, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "CHECKOUT", base.parent)  # where a model is found by its name
        return run, call(*arguments(base.name, manifest), "-o", run, *SETTINGS)


def test_a_run_ends_with_an_adapter_and_a_table(done):
    run, result = done
    assert result.exit_code == 0, result.output
    files = {"recipe.yaml", "environment.json", "log.txt", "metrics.jsonl", "checkpoints", "curves.png"}
    assert {path.name for path in run.iterdir()} <= files | {"adapter", "adaptation.json", ".lock"}
    assert (run / "adapter" / LORA_WEIGHTS).is_file()
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["domain", "target", "source", "adapter:"]
    report = json.loads((run / "adaptation.json").read_text())
    assert result.stdout.strip() == adaptation.format_report(report)


def test_the_report_is_what_one_counts_by_hand(done, base, manifest):
    run, _ = done
    report = json.loads((run / "adaptation.json").read_text())
    assert (report["model"], report["decoding"]) == (str(base), "greedy")
    size = report["adapter"]
    assert size["bytes"] == sum(path.stat().st_size for path in (run / "adapter").iterdir())
    assert size["parameters"] == 2 * (16 * 32 + 96 * 16)  # two layers' queries, keys and values
    assert report["sides"].keys() == {"target", "source"}
    for name, split in (("target", "dev"), ("source", "old")):
        side, rows = report["sides"][name], read_manifest(manifest, split=split).utterances
        rates = {}
        for when, adapter in (("before", None), ("after", run)):
            found = loading.load(base, adapter=adapter, guards=recognizer.PLAIN)
            texts = [found.transcribe(row.audio_filepath).text for row in rows]
            pairs = [
                (normalize("whisper_en", row.text or ""), normalize("whisper_en", text))
                for row, text in zip(rows, texts, strict=True)
            ]
            words = sum((word_errors(*pair) for pair in pairs), ErrorCounts())
            assert side[when]["wer"] == words.rate
            assert side[when]["cer"] == sum((char_errors(*pair) for pair in pairs), ErrorCounts()).rate
            assert side[when]["insertions"] == words.insertions
            assert side[when]["fillers"] == sum(count_fillers(text, "en") or 0 for text in texts)
            rates[when] = words.rate
        assert side["wer_change"] == pytest.approx((rates["after"] - rates["before"]) / rates["before"])
        assert side["reference_fillers"] == (2 if name == "source" else 0)
        assert (side["utterances"], side["normalizer"]) == (2, "whisper_en")


def test_the_adapter_is_switched_on_by_name_and_off_without(done, base, manifest, tmp_path):
    run, _ = done
    files = [manifest.parent / f"{index}.wav" for index in range(7)]
    before, on, after = (
        call("transcribe", *files, "--model", base, *KEEP, *extra) for extra in ([], ["--adapter", run / "adapter"], [])
    )
    assert before.exit_code == on.exit_code == 0
    assert before.stdout == after.stdout != on.stdout
    assert "warning" not in on.stderr
    evaluated = call("evaluate", "--data", manifest, "--model", base, "--adapter", run, "-o", tmp_path)
    assert evaluated.exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["model"] == f"{base.name} + {run.parent.name}/{run.name}"


def test_merging(done, base, manifest, tmp_path, monkeypatch):
    run, _ = done
    monkeypatch.setattr(loading, "CHECKOUT", base.parent)
    result = call("merge", run, "--model", base.name, "-o", tmp_path / "merged")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'merged'}\n")
    files = [manifest.parent / f"{index}.wav" for index in range(7)]
    merged = call("transcribe", *files, "--model", tmp_path / "merged", *KEEP)
    assert merged.stdout == call("transcribe", *files, "--model", base, *KEEP, "--adapter", run).stdout
    again = call("merge", run, "--model", base, "-o", tmp_path / "merged")
    assert again.exit_code == WRONG_CALL
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    "components", ["llm,bridge,encoder", pytest.param("whole_llm,bridge,encoder", marks=pytest.mark.slow)]
)
def test_more_than_the_llm(base, manifest, tmp_path, components):
    run, merged = tmp_path / "run", tmp_path / "merged"
    result = call(
        *arguments(base, manifest), "-o", run, *SETTINGS, "run.log_every=1", f"adapt.components=[{components}]"
    )
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    assert "ctc2" in (run / "metrics.jsonl").read_text()
    assert call("merge", run, "--model", base, "-o", merged).exit_code == 0
    plain, adapted, whole = (
        loading.load(folder, adapter=adapter).loaded.model
        for folder, adapter in ((base, None), (base, run), (merged, None))
    )
    waveforms = torch.from_numpy(tiny_waveform(1.0, 5))[None]
    with torch.no_grad():
        found = [model(waveforms, torch.tensor([16000]), [[5, 6, 7]])[0] for model in (plain, adapted, whole)]
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=0)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_another_base_is_refused(done, manifest):
    run, _ = done
    result = call("transcribe", manifest.parent / "0.wav", "--model", "mini-en", "--adapter", run)
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    assert "the adapter was made for another base" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_recipe_ends_with_the_same_report(done, manifest, tmp_path):
    run = tmp_path / "run"
    result = call("train", done[0] / "recipe.yaml", "-o", run)
    assert result.exit_code == 0, result.output
    assert result.stdout == done[1].stdout
    assert (run / "adaptation.json").read_text() == (done[0] / "adaptation.json").read_text()
    third = f"report.bystander=[{{path: {manifest}, split: dev}}]"
    dry = call("train", done[0] / "recipe.yaml", "--dry-run", third)
    assert dry.exit_code == 0
    assert "loss before training: " in dry.stdout
    wrong = call("train", done[0] / "recipe.yaml", "-o", tmp_path / "wrong", third.replace("dev", "no_such_split"))
    assert wrong.exit_code == WRONG_CALL
    assert "no usable row of split 'no_such_split'" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def test_wrong_targets_are_one_line_with_the_names(base, manifest, tmp_path):
    result = call("adapt", "--model", base, "--data", manifest, "-o", tmp_path / "run", "lora.targets=[q_proj]")
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    assert "LoRA finds no layer 'q_proj' (there are dense, " in result.stderr.splitlines()[-1]


def test_an_adapter_without_effect_is_a_line(base, manifest, tmp_path):
    run = tmp_path / "run"
    result = call("adapt", "--model", base, "--data", manifest, "-o", run, *SETTINGS, "optim.lr=1e-30")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["adapter:"]  # nothing to report on was given
    assert "kikitori: warning: " in result.stderr
    talk = manifest.parent / "0.wav"
    used = call("transcribe", talk, "--model", base, "--adapter", run, "--decoding", "ctc_greedy")
    assert used.exit_code == 0
    assert used.stdout == call("transcribe", talk, "--model", base, "--decoding", "ctc_greedy").stdout
    lines = used.stderr.splitlines()
    assert any(line.startswith("kikitori: warning: ") and "changes nothing" in line for line in lines)
    assert any(line.startswith("kikitori: warning: ") and "ctc_greedy uses nothing" in line for line in lines)


def sigterm_at(patch, count):
    real, seen = AdaptationTask.loss, 0

    def loss(self, batch, moment):
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, moment)

    patch.setattr(AdaptationTask, "loss", loss)


def test_a_killed_run_goes_on_to_the_same_adapter(done, base, manifest, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        sigterm_at(patch, 2)
        stopped = call(*arguments(base, manifest), "-o", run, *SETTINGS)
    assert (stopped.exit_code, stopped.stdout) == (0, "")
    assert not (run / "adapter").exists()
    result = call(*arguments(base, manifest), "-o", run, *SETTINGS, "--resume")
    assert result.exit_code == 0, result.output
    assert "resumed from" in (run / "log.txt").read_text()
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/kikitori_adapter.json"):
        assert (run / name).read_bytes() == (done[0] / name).read_bytes()
    assert (run / "adaptation.json").read_text() == (done[0] / "adaptation.json").read_text()


def test_a_run_killed_in_its_report_is_finished_by_resuming(done, base, manifest, tmp_path):
    shutil.copytree(done[0], tmp_path / "run")
    expected = (tmp_path / "run" / "adaptation.json").read_text()
    (tmp_path / "run" / "adaptation.json").unlink()
    assert "not empty" in call(*arguments(base, manifest), "-o", tmp_path / "run", *SETTINGS).stderr
    result = call(*arguments(base, manifest), "-o", tmp_path / "run", *SETTINGS, "--resume")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "adaptation.json").read_text() == expected


def test_text_alone(base, manifest, tmp_path):
    (tmp_path / "domain.txt").write_text("two small birds\nthe cat and the dog\n" * 6)
    run = tmp_path / "run"
    sides = ("--dev", manifest, "--dev-split", "dev", "--replay", manifest, "--replay-split", "old")
    settings = ("run.epochs=2", "optim.lr=0.05", "hold.weight=0.1", "run.device=cpu")
    result = call("adapt", "--model", base, "--text", tmp_path / "domain.txt", *sides, "-o", run, *settings)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["domain", "target", "adapter:"]
    assert "no show_ctc" in (run / "log.txt").read_text()
    files = [manifest.parent / f"{index}.wav" for index in range(7)]
    extras = ([], ["--adapter", run])
    plain, adapted = (call("transcribe", *files, "--model", base, *KEEP, *extra).stdout for extra in extras)
    assert plain != adapted


def test_an_adapted_encoder_takes_its_ctc_head_along(base, manifest):
    data = adaptation.Domain(data=adaptation.Rows([manifest]))
    recipe = adaptation.adaptation_recipe(str(base), data, ["adapt.components=[llm,encoder]"])
    assert recipe.ctc.weights == {2: adaptation.CTC_WEIGHT}
    own = adaptation.adaptation_recipe(str(base), data, ["adapt.components=[encoder]", "ctc.weights={2: 0.1}"])
    assert own.ctc.weights == {2: 0.1}
    assert adaptation.adaptation_recipe(str(base), data).ctc.weights == {}


def test_a_run_stands_for_its_model(base, manifest, tmp_path):
    shutil.copytree(base, tmp_path / "run" / "model")
    recipe = adaptation.adaptation_recipe(str(tmp_path / "run"), adaptation.Domain(text=[manifest]))
    assert recipe.adapt is not None
    assert recipe.adapt.model == recipe.units.path == str(tmp_path / "run" / "model")
    assert recipe.language == "en"


def test_without_the_adapter_the_base_is_as_it_was(done, base):
    run, _ = done
    plain, adapted = loading.load(base).loaded.model, loading.load(base, adapter=run).loaded.model
    removed = adapted.llm.unload().state_dict()
    assert all(torch.equal(tensor, removed[name]) for name, tensor in plain.llm.state_dict().items())


def test_a_base_that_shows_phones_brings_its_lexicon(base, manifest, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)

    def lexicon():
        return adaptation.adaptation_recipe(str(folder), adaptation.Domain(text=[manifest])).text_injection.lexicon

    (folder / "lexicon.tsv.xz").touch()
    assert lexicon() is None
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"show_phones": True}))
    assert lexicon() == str(folder / "lexicon.tsv.xz")
    (folder / "lexicon.tsv.xz").unlink()
    assert lexicon() is None
