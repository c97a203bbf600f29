"""Whisper recognisers as users meet them."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile as sf
import torch
from starlette.testclient import TestClient
from transformers.generation.utils import GenerateEncoderDecoderOutput

from kikitori.align.attention import attention_jumps
from kikitori.data.speech import pad_waveforms
from kikitori.engine.local import LocalEngine
from kikitori.engine.models import by_name, served
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.io.writers import render
from kikitori.loading import load
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import CAREFUL, PLAIN
from kikitori.search.guards import NO_SPEECH
from kikitori.segment import chunks
from kikitori.server.app import create_app
from kikitori.server.settings import Settings
from tests.commands import call, one_line
from tests.segmenters import AllSpeech, LoudIsSpeech
from tests.tiny import save_tiny, save_tiny_whisper, tiny_waveform, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(8)
PREVIOUS = 404  # a label that is never written


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "whisper-tiny"
    save_tiny_whisper(folder, tiny_whisper(multilingual=True))
    return folder


@pytest.fixture(scope="module")
def recognizer(folder):
    return load(folder, device="cpu", guards=PLAIN)


def test_text_is_that_of_transformers(recognizer):
    whisper, units = tiny_whisper(multilingual=True), recognizer.loaded.units
    with torch.inference_mode(), quiet_transformers():
        features, _ = recognizer.loaded.model.acoustic.encoder.features(*pad_waveforms(WAVEFORMS))
        rows = whisper.generate(features.transpose(1, 2), task="transcribe").tolist()
    expected = [units.decode(row) for row in rows]
    for size in (1, 3, 8):
        found = [*recognizer.transcribe_many(WAVEFORMS, batch_size=size)]
        assert [transcript.text for transcript in found] == expected
    assert len({*expected}) > 5


@pytest.mark.parametrize("search", ["beam", "sampling"])
def test_other_searches_of_the_decoder_keep_to_its_rules(recognizer, search):
    together = recognizer.recognize(WAVEFORMS, search)
    assert [recognizer.recognize([waveform], search)[0].labels for waveform in WAVEFORMS] == [
        each.labels for each in together
    ]
    config = tiny_whisper(multilingual=True).generation_config
    for each in together:
        assert each.labels
        assert not {*each.labels} & {*config.suppress_tokens}
        assert each.labels[0] not in config.begin_suppress_tokens


@pytest.mark.parametrize("search", ["ctc_greedy", "ctc_beam", "joint", "joint_time_sync", "speculative", "rescoring"])
def test_searches_over_a_ctc_head_are_refused(recognizer, search):
    with pytest.raises(ModelError, match="the model has no CTC head; use greedy"):
        recognizer.recognize(WAVEFORMS[:1], search)


def test_recordings_longer_than_the_window_are_cut(recognizer, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "new_segmenter", AllSpeech)
    long = tmp_path / "long.wav"
    sf.write(long, np.concatenate([tiny_waveform(1.5, 1), tiny_waveform(1.5, 2), tiny_waveform(1.5, 3)]), 16000)
    first, found, last = recognizer.try_transcribe_many([WAVEFORMS[0], long, WAVEFORMS[1]])
    assert [first, last] == [recognizer.transcribe(waveform) for waveform in WAVEFORMS[:2]]
    assert len(found.segments) > 1
    assert (found.duration, found.words) == (4.5, ())


def test_words_have_times_from_cross_attention(recognizer):
    together = [*recognizer.transcribe_many(WAVEFORMS, word_times=True)]
    for waveform, found in zip(WAVEFORMS, together, strict=True):
        assert [word.word for word in found.words] == found.text.split()
        edges = [edge for word in found.words for edge in (word.start, word.end)]
        assert all(a <= b for a, b in pairwise(edges))
        assert 0.0 <= edges[0] < edges[-1] <= found.duration
        assert all(word.end > word.start for word in found.words)
        assert all(0.0 < word.confidence <= 1.0 for word in found.words if word.confidence is not None)
        alone = recognizer.transcribe(waveform, word_times=True)
        assert [(w.word, w.start, w.end) for w in alone.words] == [(w.word, w.start, w.end) for w in found.words]
        assert recognizer.transcribe(waveform).words == ()
    # Halves of characters take more labels than there are positions for: then times are estimated.
    assert sum(word.confidence is not None for found in together for word in found.words) >= 4


def test_times_of_labels_are_those_of_transformers(folder):
    heads = [(1, 0), (0, 2), (1, 3)]
    whisper, recognizer = tiny_whisper(multilingual=True), load(folder, device="cpu", guards=PLAIN, language="en")
    whisper.set_attn_implementation("eager")
    model = recognizer.loaded.model
    model.rules = replace(model.rules, alignment_heads=tuple(heads))
    prompt = model.rules.prompt_in(model.rules.languages["en"])
    batch = recognizer.encode(WAVEFORMS)
    labels = [list(each.labels) for each in recognizer.recognize(WAVEFORMS)]
    counts = torch.tensor([len(row) for row in labels])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in labels], batch_first=True)
    with torch.inference_mode():
        attention = batch.decoder().attention(padded, counts)
    for number, row in enumerate(labels):
        features, lengths = model.encoder.features(*pad_waveforms([WAVEFORMS[number]]))
        read = torch.tensor([prompt + row])
        with torch.inference_mode():
            out = whisper(input_features=features.transpose(1, 2), decoder_input_ids=read, output_attentions=True)
        generated = GenerateEncoderDecoderOutput(sequences=read, cross_attentions=(out.cross_attentions,))
        frames = int(lengths[0])
        theirs = whisper._extract_token_timestamps(
            generated, heads, num_frames=torch.tensor([frames]), num_input_ids=len(prompt)
        )
        # transformers leaves out the last label of the prompt, behind which the first label is written
        ours = attention_jumps(attention.weights[number, :, 1 : len(row) + 1, : frames // 2], attention.median_width)
        assert theirs[0, len(prompt) : -1].numpy() == pytest.approx(ours * 0.02, abs=1e-6)
        given = out.logits.log_softmax(dim=-1)[0, len(prompt) - 1 : -1].gather(1, read[0, len(prompt) :, None])[:, 0]
        assert attention.log_probs[number, : len(row)].numpy() == pytest.approx(given.numpy(), abs=1e-4)
    assert max(map(len, labels)) > 10


def test_subtitles_have_words(folder, tmp_path):
    sf.write(tmp_path / "talk.wav", WAVEFORMS[1], 16000)
    result = call("transcribe", tmp_path / "talk.wav", "--model", folder, "-f", "srt", "--highlight-words")
    assert result.exit_code == 0
    assert result.stdout.startswith("1\n00:00:00,")
    assert "<u>" in result.stdout
    assert "estimated" not in result.stderr


def test_segments_are_joined_as_the_language_found_writes_them(recognizer, monkeypatch):
    long = np.concatenate(
        [part for seed in range(4) for part in (tiny_waveform(1.2, seed), np.zeros(8000, np.float32))]
    )
    monkeypatch.setattr(chunks, "new_segmenter", LoudIsSpeech)
    found = recognizer.transcribe(long)
    assert {segment.language for segment in found.segments} <= {"en", "ja"}
    for language, space in (("ja", ""), ("en", " ")):
        always = [language]
        monkeypatch.setattr(
            type(recognizer.loaded.model), "_languages", lambda self, _, a=always: [self.rules.languages[a[0]]]
        )
        found = recognizer.transcribe_many([long], batch_size=1)
        (found,) = found
        assert len(found.segments) == 4
        assert [segment.language for segment in found.segments] == [language] * 4
        assert found.text == space.join(segment.text for segment in found.segments)
        assert found.language == language
        assert json.loads(render(found, "json", audio="a.wav"))["language"] == language


def test_more_labels_than_positions_are_refused_and_the_window_has_no_more(recognizer):
    assert max(len(each.labels) for each in recognizer.recognize(WAVEFORMS)) == 36
    with pytest.raises(AudioError, match="40 positions"):
        recognizer.recognize(WAVEFORMS[:1], replace(recognizer.decoding, max_labels=37))


def test_silence_has_no_text(recognizer):
    transcript = replace(recognizer, guards=CAREFUL).transcribe(np.zeros(16000, np.float32))
    assert (transcript.text, transcript.flags) == ("", (NO_SPEECH,))


def test_the_command_line_takes_a_language(folder, tmp_path):
    audio = tmp_path / "talk.wav"
    sf.write(audio, WAVEFORMS[1], 16000, subtype="FLOAT")
    texts = {}
    for language in ("en", "ja"):
        result = call("transcribe", audio, "--model", folder, "--language", language, "-o", tmp_path, "-f", "json")
        assert result.exit_code == 0, result.output
        written = json.loads((tmp_path / "talk.json").read_text())
        assert written["language"] == language
        texts[language] = written["text"]
        assert texts[language] == load(folder, device="cpu", language=language).transcribe(audio).text
    assert texts["en"] != texts["ja"]
    result = call("transcribe", audio, "--model", folder, "--language", "xx")
    assert "does not know the language 'xx'" in one_line(result)


@pytest.fixture(scope="module")
def prompted(folder, tmp_path_factory):
    """The same folder, with a label that text before a transcript begins with."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("prompted") / "whisper")
    rules = copy / "generation_config.json"
    rules.write_text(json.dumps(json.loads(rules.read_text()) | {"prev_sot_token_id": PREVIOUS}))
    return copy


@pytest.mark.parametrize("prompt", ["  the lazy dog\n", "the quick brown fox jumps over the lazy dog and the world"])
def test_a_prompt_is_read_as_by_transformers(prompted, prompt):
    recognizer = load(prompted, device="cpu", guards=PLAIN, language="en")
    whisper, units = tiny_whisper(multilingual=True), recognizer.loaded.units
    labels = units.encode(f" {prompt.strip()}")
    read = torch.tensor([PREVIOUS, *labels[-19:]])  # of 40 positions
    with torch.inference_mode(), quiet_transformers():
        features, _ = recognizer.loaded.model.acoustic.encoder.features(*pad_waveforms(WAVEFORMS))
        rows = whisper.generate(features.transpose(1, 2), task="transcribe", language="en", prompt_ids=read).tolist()
    found = [*recognizer.transcribe_many(WAVEFORMS, prompt=prompt, batch_size=3)]
    assert [each.text for each in found] == [units.decode(row) for row in rows]
    assert [each.text for each in found] != [recognizer.transcribe(waveform).text for waveform in WAVEFORMS]
    assert [each.text for each in recognizer.transcribe_many(WAVEFORMS[:1], prompt=" ")] == [
        recognizer.transcribe(WAVEFORMS[0]).text
    ]


def test_the_command_line_and_the_server_take_a_prompt(prompted, tmp_path):
    audio, recognizer = tmp_path / "talk.wav", load(prompted, device="cpu", language="en")
    sf.write(audio, WAVEFORMS[1], 16000, subtype="FLOAT")
    texts = [recognizer.transcribe(audio, prompt=prompt).text for prompt in ("", "the lazy dog")]
    result = call("transcribe", audio, "--model", prompted, "--language", "en", "--prompt", "the lazy dog", "-f", "txt")
    assert (result.exit_code, result.stdout.strip()) == (0, texts[1])
    engine = LocalEngine(by_name([served(recognizer, [])]))
    with TestClient(create_app(engine, Settings()), base_url="http://127.0.0.1") as client:
        asked = [{"model": "whisper"}, {"model": "whisper", "prompt": "the lazy dog"}]
        files = {"file": audio.read_bytes()}
        answers = [client.post("/v1/audio/transcriptions", data=each, files=files) for each in asked]
        (properties,) = (
            client.get("/openapi.json")
            .json()["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
            .values()
        )
    assert [answer.json()["text"] for answer in answers] == texts
    assert "maxLength" not in properties["schema"]["properties"]["prompt"]


def test_models_that_read_no_prompt(recognizer, tmp_path):
    with pytest.raises(ModelError, match="was not trained to read a prompt; leave it out"):
        recognizer.transcribe(WAVEFORMS[0], prompt="the lazy dog")  # its tokenizer has no <|startofprev|>
    save_tiny(tmp_path / "llm")
    sf.write(tmp_path / "talk.wav", WAVEFORMS[1], 16000)
    result = call("transcribe", tmp_path / "talk.wav", "--model", tmp_path / "llm", "--prompt", "dog")
    assert "llm: the model was not trained to read a prompt; leave it out" in one_line(result)


def test_a_short_window_gives_the_same_in_any_batch(folder):
    short = load(folder, device="cpu", guards=PLAIN, window="speech", language="en")
    batch = short.encode(WAVEFORMS).encoded
    assert batch.window.shape[1] < 100
    assert batch.window_lengths.tolist() == [length + 25 for length in batch.lengths.tolist()]
    for search in ("greedy", "beam"):
        together = short.recognize(WAVEFORMS, search)
        assert [short.recognize([waveform], search)[0].labels for waveform in WAVEFORMS] == [
            each.labels for each in together
        ]


def test_what_is_doubtful_behind_a_short_window_is_decoded_at_30_s(folder, monkeypatch):
    padded, short = (
        load(folder, device="cpu", guards=PLAIN, window=window, language="en") for window in ("padded", "speech")
    )
    expected = [each.labels for each in padded.recognize(WAVEFORMS)]
    monkeypatch.setattr("kikitori.recognizer.batches.is_doubtful", lambda _, seconds: seconds > 1.0)
    found = [each.labels for each in short.recognize(WAVEFORMS)]
    long = [len(waveform) > 16000 for waveform in WAVEFORMS]
    assert {True, False} == {*long}
    assert all(one == other for one, other, again in zip(found, expected, long, strict=True) if again)


def test_a_window_of_a_model_without_a_whisper_decoder(tmp_path):
    save_tiny(tmp_path)
    with pytest.raises(ConfigError, match="the model has no Whisper decoder"):
        load(tmp_path, window="speech")
