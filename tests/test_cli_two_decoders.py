"""Commands on a model folder with two decoders."""

import json

import pytest
import soundfile as sf

from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.recognizer import PLAIN
from kikitori.scoring.comparison.systems import read_systems
from kikitori.workflows.machine.models import describe
from kikitori.workflows.study.plan import plan_study
from kikitori.workflows.study.run import recognizer_of
from kikitori.workflows.study.spec import load_study
from tests.commands import call, one_line
from tests.tiny import tiny_waveform
from tests.two_decoders import save_two_decoders

KEEP = ("--on-runaway", "keep", "--on-no-speech", "keep")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two decoders, and a recording with its manifest beside it."""
    root = tmp_path_factory.mktemp("two")
    save_two_decoders(root / "two", root / "work")
    sf.write(root / "a.wav", tiny_waveform(1.2, 3), SAMPLE_RATE, subtype="FLOAT")
    row = {"audio_filepath": "a.wav", "duration": 1.2, "text": "the quick fox", "language": "en"}
    (root / "data.jsonl").write_text(json.dumps(row) + "\n")
    return root / "two"


def test_transcribe(two):
    audio = two.with_name("a.wav")
    recognizers = [load(two, device="cpu", guards=PLAIN, decoder=name) for name in ("encoder_decoder", "speech_llm")]
    whisper, llm = (recognizer.transcribe(str(audio), decoding="greedy").text for recognizer in recognizers)
    assert whisper != llm
    for options, text in (
        ((), whisper),
        (("--decoder", "encoder_decoder"), whisper),
        (("--decoder", "speech_llm"), llm),
        (("decoding.decoder=speech_llm",), llm),
    ):
        result = call("transcribe", audio, "--model", two, "--decoding", "greedy", *options, *KEEP)
        assert result.stdout == f"{audio}\t{' '.join(text.split())}\n", result.output
    for options, message in (
        (
            ("--model", two / "speech_llm", "--decoder", "encoder_decoder"),
            "there is no encoder_decoder, but speech_llm",
        ),
        (("--model", two, "--decoding", "ctc_greedy", "decoding.decoder=speech_llm"), "decoder"),
        (("--model", "hf:x", "--decoder", "speech_llm"), "--decoder: recognisers of other software take none"),
    ):
        assert message in one_line(call("transcribe", audio, *options))


def test_reports_name_the_decoder(two, tmp_path):
    data = two.with_name("data.jsonl")
    asked = {"whisper": (), "llm": ("--decoder", "speech_llm"), "ctc": ("--decoding", "ctc_greedy")}
    for name, options in asked.items():
        result = call("evaluate", "--data", data, "--model", two, "-o", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
    reports = {name: json.loads((tmp_path / name / "report.json").read_text()) for name in asked}
    assert [report.get("decoder") for report in reports.values()] == ["encoder_decoder", "speech_llm", None]
    assert [report["model"] for report in reports.values()] == ["two", "two/speech_llm", "two"]
    assert [report["decoding"] for report in reports.values()] == ["greedy", "joint", "ctc_greedy"]
    assert "decoder: speech_llm" in (tmp_path / "llm" / "report.html").read_text()
    systems = read_systems([str(tmp_path / name) for name in ("whisper", "llm")])
    assert [facts[:3] for facts in (system.facts for system in systems)] == [
        ("model two", "decoder encoder_decoder", "decoding greedy"),
        ("model two/speech_llm", "decoder speech_llm", "decoding joint"),
    ]


def test_list_names_both(two):
    assert describe("two", two).kind == "whisper-tiny with CTC heads, and a speech LLM (--decoder)"
    assert describe("two", two / "speech_llm").problem is None


def test_the_server_offers_both_over_one_encoder(two, monkeypatch):
    served = []
    monkeypatch.setattr("kikitori.workflows.serve.serve", lambda recognizers, *_, **__: served.extend(recognizers))
    both = ("--decoder", "speech_llm", "--decoder", "encoder_decoder")
    assert call("serve", "--model", two, *both, "--decoding", "greedy").exit_code == 0
    assert [each.name for each in served] == ["two/speech_llm", "two"]
    assert [each.decoding.search for each in served] == ["greedy", "greedy"]
    assert served[0].loaded.model.acoustic is served[1].loaded.model.acoustic


def test_cells_of_a_study_choose(two, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "task: acoustic_model\ndata: {train: [{path: data.jsonl}], dev: [{path: data.jsonl}]}\n"
        f"data_root: {two.parent}\nunits: {{kind: characters}}\nencoder: {{init: {two}}}\n"
        "optim: {lr: 0.1}\nrun: {epochs: 1}\nctc: {weights: {1: 1.0}}\n"
    )
    (tmp_path / "study.yaml").write_text(
        f"recipe: recipe.yaml\ntest: [{{path: data.jsonl}}]\nsettings: {{model: {two}, decoding.search: greedy}}\n"
        "axes: {decoding.decoder: [null, speech_llm]}\n"
    )
    study = load_study(tmp_path / "study.yaml")
    plan = plan_study(study, tmp_path / "study.yaml")
    assert [recognizer_of(trial, tmp_path).decoder for trial in plan.trials] == ["encoder_decoder", "speech_llm"]
    file = two / "speech_llm" / "generation_config.json"
    before = file.read_text()
    file.write_text(before + "\n")
    changed = plan_study(study, tmp_path / "study.yaml")
    file.write_text(before)
    assert [one.digest == other.digest for one, other in zip(plan.trials, changed.trials, strict=True)] == [True, False]
