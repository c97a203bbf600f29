"""The LLM on a vLLM server: what it writes is what it writes here; errors are one line. The server is a stand-in."""

import json
import time

import pytest
import soundfile as sf
import torch
from transformers import AutoModelForCausalLM

from kikitori.cli.common import WRONG_CALL
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.io import json_api
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.json_api import ServerError
from kikitori.loading import load
from kikitori.scorers.options import ScorerOptions
from kikitori.search.autoregressive import vllm
from kikitori.search.defaults import default_search
from kikitori.search.options import GreedySearch, RescoringSearch, VLLMSearch, load_decoding
from tests.adapters import make_adapter
from tests.commands import call, one_line
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_speech_llm, tiny_waveform, tiny_waveforms
from tests.vllm import FakeVLLM, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def recognizer(folder):
    return load(folder, decoding="greedy")


@pytest.fixture
def fake(recognizer):
    return FakeVLLM(recognizer.loaded.model.llm)


@pytest.fixture
def url(fake):
    with serving(fake) as url:
        yield url


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(json_api, "PAUSES_S", (0.0, 0.0))


def _plain(results):
    return [
        [(each.labels, each.text, each.complete, each.speech_positions, pytest.approx(each.score)) for each in nbest]
        for nbest in results
    ]


@pytest.mark.parametrize("limits", [{}, {"max_labels": 3}, {"min_labels": 12}, {"max_labels": 4, "min_labels": 9}])
def test_the_most_probable_labels_are_those_of_greedy_search(recognizer, url, limits):
    waveforms = tiny_waveforms(4, seconds=(0.3, 1.2))
    here = recognizer.try_recognize(waveforms, GreedySearch(**limits))
    there = recognizer.try_recognize(waveforms, VLLMSearch(server=url, **limits))
    assert _plain(there) == _plain(here)
    if not limits:
        assert {nbest[0].complete for nbest in here} == {True, False}


def test_a_list_holds_the_most_probable_labels_and_others_once_the_best_first(recognizer, url, fake):
    search = VLLMSearch(server=f"{url}/v1/", nbest=6, temperature=1.5, model="llm")
    waveforms = tiny_waveforms(2)
    (first, second), greedy = recognizer.try_recognize(waveforms, search), recognizer.try_recognize(waveforms)
    for nbest, best in zip((first, second), greedy, strict=True):
        assert best[0].labels in [each.labels for each in nbest]
        assert 2 <= len(nbest) == len({each.labels for each in nbest}) <= 6
        assert [each.score for each in nbest] == sorted((each.score for each in nbest), reverse=True)
    seeds = {question["seed"] for question in fake.questions if question["n"] > 1}
    assert len(seeds) == 2
    again = recognizer.try_recognize(waveforms[1:], search)
    assert _plain(again) == _plain([second])  # whatever it is batched with


def test_lists_are_rescored_by_the_ctc_head(recognizer, url):
    first = VLLMSearch(server=url, nbest=6, temperature=1.5)
    search = RescoringSearch(first=first, scorers={"ctc": ScorerOptions(scale=0.5)})
    waveforms = tiny_waveforms(2)
    log_probs, lengths = recognizer.ctc_log_probs(waveforms)
    lists = recognizer.try_recognize(waveforms, first)
    for row, nbest in enumerate(recognizer.try_recognize(waveforms, search)):
        assert {each.labels for each in nbest} == {each.labels for each in lists[row]}
        for each in nbest:
            loss = torch.nn.functional.ctc_loss(
                log_probs[row, : lengths[row], None],
                torch.tensor([each.labels]),
                lengths[row : row + 1],
                torch.tensor([len(each.labels)]),
                blank=log_probs.shape[2] - 1,
                reduction="sum",
            )
            assert each.scores["ctc"] == pytest.approx(-float(loss), rel=1e-4)
            assert each.score == pytest.approx(each.scores["speech_llm"] + 0.5 * each.scores["ctc"], rel=1e-4)
        assert nbest[0].score == max(each.score for each in nbest)


def test_what_is_too_long_for_the_server_is_the_error_of_its_recording_alone(recognizer, url, fake):
    fake.max_model_len = 30
    short, long = recognizer.try_recognize([tiny_waveform(0.1), tiny_waveform(1.6)], VLLMSearch(server=url))
    assert len(short[0].labels) <= 30
    assert isinstance(long, AudioError)
    assert "the LLM has 29 positions" in str(long)


def _errors():
    def slow(_):
        time.sleep(0.3)

    logprobs = {"tokens": ["token_id:900"], "token_logprobs": [0.0]}
    broken = {"tokens": ["token_id:9"], "token_logprobs": [None]}
    return {
        "down": (None, "the server cannot be reached (", 0),
        "slow": (slow, "no answer within 0.1 s; see its log", 3),
        "500": (lambda _: (500, b"oh"), "the server answers 500 (Internal Server Error)", 1),
        "503": (lambda _: (503, {"message": "loading"}), "the server answers 503 (loading)", 3),
        "400": (lambda _: (400, {"error": "You must set `--enable-prompt-embeds`"}), "400 (You must set", 1),
        "cut off": (lambda _: (200, b'{"choices": [{"logpr'), "the answer is no JSON, or was cut off", 3),
        "no object": (lambda _: (200, []), "the answer is no JSON object; is it the right server?", 1),
        "no labels": (lambda _: (200, {"choices": [{"text": "yes"}]}), "holds no labels with their log-prob", 1),
        "empty": (lambda _: (200, {"choices": []}), "the answer holds no hypothesis", 1),
        "strange": (lambda _: (200, {"choices": [{"logprobs": logprobs}]}), "writes label 900, which the", 1),
        "null": (lambda _: (200, {"choices": [{"logprobs": broken}]}), "holds no labels with their log-prob", 1),
    }


@pytest.mark.parametrize("name", _errors())
def test_errors_are_one_line_and_busy_servers_are_asked_again(recognizer, fake, monkeypatch, name):
    answer, message, tries = _errors()[name]
    monkeypatch.setattr(vllm, "TIMEOUT_S", 0.1)
    with serving(fake) as url:
        if answer is not None:
            fake.fail = answer
            with pytest.raises(ServerError) as caught:
                recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=url))
            time.sleep(0.4 if name == "slow" else 0.0)
    if answer is None:
        with pytest.raises(ServerError) as caught:
            recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=url))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(fake.questions) == tries


def test_an_llm_of_another_size_or_name(recognizer, url, fake):
    fake.llm = tiny_speech_llm().llm
    fake.llm.config.hidden_size = 48
    with pytest.raises(ServerError, match=r"400 .*hidden_size 32 does not match the model's hidden_size 48"):
        recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=url))
    with pytest.raises(ServerError, match=r"models: it serves no 'other'; name one of those with decoding\.model"):
        recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=url, model="other"))


def test_a_server_that_recovers_is_no_error_and_gets_its_key(recognizer, url, fake, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    answers = [(503, {}), (200, b"{"), None]
    fake.fail = lambda _: answers.pop(0)
    assert recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=url))[0][0].labels
    assert set(fake.keys) == {"Bearer secret"}


def test_other_calls_are_refused(recognizer, tmp_path):
    with pytest.raises(ConfigError, match=r"decoding\.server: no server is named; add decoding\.server=http"):
        recognizer.try_recognize([tiny_waveform()], "vllm")
    for server in ("localhost:8000", "file:///etc/passwd", "http://"):
        with pytest.raises(ConfigError, match="no URL of a server"):
            recognizer.try_recognize([tiny_waveform()], VLLMSearch(server=server))
    save_tiny(tmp_path / "ctc", tiny_acoustic_model())
    save_tiny(tmp_path / "cross", tiny_speech_llm(interface="cross_attention"))
    for name, reason in (("ctc", "an acoustic model has no LLM"), ("cross", "vLLM serves LLMs that read")):
        with pytest.raises(ModelError, match=reason):
            load(tmp_path / name).try_recognize([tiny_waveform()], VLLMSearch(server="http://localhost:1"))
    (tmp_path / "ctc" / "decoding.yaml").write_text("search: rescoring\nfirst: {search: vllm, server: 'http://x'}\n")
    with pytest.raises(ModelError, match=r"decoding\.yaml: a model folder names no server; name it with --decoding"):
        default_search(tmp_path / "ctc")
    own = tmp_path / "own.yaml"
    own.write_text("search: vllm\nserver: http://localhost:8000\nnbest: 3\n")
    assert load_decoding(own) == VLLMSearch(server="http://localhost:8000", nbest=3)


def test_a_run_that_loses_its_server_goes_on_where_it_was(folder, fake, tmp_path):
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", tiny_waveform(0.5 + 0.2 * number, number), SAMPLE_RATE)
    command = ["transcribe", *sorted(tmp_path.glob("*.wav")), "--model", folder, "-o", tmp_path / "out"]
    with serving(fake) as url:
        command += ["--decoding", "vllm", f"decoding.server={url}", "--batch-size", 1]
        fake.fail = lambda _: (500, b"") if len(fake.questions) > 2 else None
        stopped = call(*command)
        assert stopped.exit_code == WRONG_CALL
        assert "the server answers 500" in stopped.stderr.splitlines()[-1]
        assert len([*(tmp_path / "out").glob("*.txt")]) == 2
        fake.fail = lambda _: None
        assert call(*command).exit_code == 0
        assert len(fake.questions) == 4
    texts = [file.read_text() for file in sorted((tmp_path / "out").glob("*.txt"))]
    lines = call("transcribe", *sorted(tmp_path.glob("*.wav")), "--model", folder, "--decoding", "greedy").stdout
    assert texts == [line.split("\t")[1] + "\n" for line in lines.splitlines()]


def test_the_llm_alone_is_a_folder_of_transformers_with_equal_logits(recognizer, folder, tmp_path):
    assert call("convert", "llm", folder, "-o", tmp_path / "llm").stdout == f"{tmp_path / 'llm'}\n"
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "llm").eval()
    labels = torch.tensor([[1, 5, 9, 2]])
    with torch.inference_mode():
        assert torch.equal(alone(labels).logits, recognizer.loaded.model.llm(labels).logits)
    ends = json.loads((tmp_path / "llm" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == recognizer.loaded.model.config.eos_id
    assert (tmp_path / "llm" / "tokenizer.json").is_file()
    adapted = make_adapter(folder, tmp_path / "adapter")
    assert call("convert", "llm", folder, "-o", tmp_path / "merged", "--adapter", tmp_path / "adapter").exit_code == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(labels).logits, adapted.llm(labels).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(merged(labels).logits, alone(labels).logits, atol=1e-2)
    assert "is there already" in one_line(call("convert", "llm", folder, "-o", tmp_path / "llm"))
    save_tiny(tmp_path / "ctc", tiny_acoustic_model())
    assert "no LLM that reads the speech" in one_line(call("convert", "llm", tmp_path / "ctc", "-o", tmp_path / "x"))
