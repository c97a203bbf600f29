"""Models of transformers run by transformers, beside its own calls and beside our recogniser of the same folder."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import soundfile as sf
import torch
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
)

from kikitori.baselines.load import load_baseline
from kikitori.data.manifest import write_manifest
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import PLAIN
from tests.commands import call, one_line
from tests.tiny import SIZES, WAVE, save_tiny_whisper, shake, tiny_bpe, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(5)
LETTERS = "|abcdefghijklmnopqrstuvwxyz"


def texts(baseline, waveforms=WAVEFORMS):
    return [result[0].text for result in baseline.recognize(waveforms)]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "whisper"
    save_tiny_whisper(folder, tiny_whisper(multilingual=True))
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "ctc"
    folder.mkdir()
    vocabulary = {"<pad>": 0, **{letter: place for place, letter in enumerate(LETTERS, 1)}, "<unk>": 28}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    special = {"bos_token": None, "eos_token": None, "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json", **special)
    features = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    torch.manual_seed(0)
    config = Wav2Vec2Config(**WAVE, feat_extract_norm="layer", do_stable_layer_norm=True, vocab_size=29, pad_token_id=0)
    model = Wav2Vec2ForCTC(config).eval()
    shake(model, 0, 0.3)
    with quiet_transformers():
        model.save_pretrained(folder)
        Wav2Vec2Processor(features, tokenizer).save_pretrained(folder)
    return folder


def speech_llm(folder, kind):
    """A tiny random speech LLM of a kind, with its processor."""
    audio = {"glmasr": "<|pad|>", "qwen2_audio": "<|AUDIO|>"}[kind]
    tokenizer = tiny_bpe(extra=(audio, "<|audio_bos|>", "<|audio_eos|>")).tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    sizes = {**SIZES, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "eos_token_id": 2, "bos_token_id": 1}
    features = WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    audio_id = tokenizer.convert_tokens_to_ids(audio)
    torch.manual_seed(0)
    if kind == "glmasr":
        encoder = {**SIZES, "num_mel_bins": 8, "intermediate_size": 128, "model_type": "glmasr_encoder"}
        text = {**sizes, "model_type": "llama"}
        config = GlmAsrConfig(audio_config=encoder, text_config=text, audio_token_id=audio_id)
        model = GlmAsrForConditionalGeneration(config)
        template = "{% for m in messages %}{% for c in m.content %}{{ '<|pad|>' if c.type == 'audio' else c.text }}"
        template += "{% endfor %}{% endfor %}"
        processor = GlmAsrProcessor(features, tokenizer, chat_template=template)
    else:
        encoder = {"d_model": 24, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        encoder |= {"num_mel_bins": 8, "max_source_positions": 100, "model_type": "qwen2_audio_encoder"}
        text = {**sizes, "model_type": "qwen2"}
        model = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(audio_config=encoder, text_config=text, audio_token_index=audio_id)
        )
        processor = Qwen2AudioProcessor(features, tokenizer)
    shake(model, 0, 0.2)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
        processor.save_pretrained(folder)


def test_whisper_writes_what_our_greedy_search_writes(whisper):
    ours = load(whisper, device="cpu", guards=PLAIN)
    expected = [transcript.text for transcript in ours.transcribe_many(WAVEFORMS)]
    baseline = load_baseline(f"hf:{whisper}", device="cpu")
    assert texts(baseline) == expected
    assert len({*expected}) > 3
    assert (baseline.name, baseline.device, baseline.dtype, baseline.longest_s) == ("whisper", "cpu", "float32", 2.0)
    (too_long,) = baseline.recognize(tiny_waveforms(1, seconds=(2.1, 2.2)))
    assert isinstance(too_long, AudioError)
    assert texts(baseline, [WAVEFORMS[0][:300], WAVEFORMS[1]]) == ["", expected[1]]
    japanese = load(whisper, device="cpu", guards=PLAIN, language="ja")
    spoken = load_baseline(f"hf:{whisper}", device="cpu", language="ja")
    assert texts(spoken) == [transcript.text for transcript in japanese.transcribe_many(WAVEFORMS)]


def test_ctc_is_the_best_label_of_each_frame_collapsed(ctc):
    found = texts(load_baseline(f"hf:{ctc}", device="cpu"))
    with quiet_transformers():
        model = Wav2Vec2ForCTC.from_pretrained(ctc).eval()
    features = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    for waveform, text in zip(WAVEFORMS, found, strict=True):
        with torch.inference_mode():
            inputs = features(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            labels = torch.unique_consecutive(model(**inputs).logits[0].argmax(dim=-1)).tolist()
        alone = "".join(" " if label == 1 else LETTERS[label - 1] for label in labels if 0 < label < 28)
        # Padding changes its last frames: transformers promises no more.
        assert text.replace("<unk>", "")[: len(alone) // 2] == alone.strip()[: len(alone) // 2]
    assert len({*found}) == len(found)


@pytest.mark.parametrize("kind", ["glmasr", "qwen2_audio"])
def test_speech_llms_are_asked_and_write_behind_the_request(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("kikitori.baselines.by_transformers.MOST_LABELS", 6)
    speech_llm(tmp_path, kind)
    baseline = load_baseline(f"hf:{tmp_path}", device="cpu")
    found = texts(baseline)
    assert len({*found}) > 1
    assert not any("transcribe" in text.lower() for text in found)
    assert found[:1] == texts(baseline, WAVEFORMS[:1])


def test_the_same_work_as_for_ours(whisper, tmp_path):
    rows = []
    for number, waveform in enumerate(WAVEFORMS):
        sf.write(tmp_path / f"{number}.wav", waveform, SAMPLE_RATE, subtype="FLOAT")
        seconds = len(waveform) / SAMPLE_RATE
        rows.append({"audio_filepath": f"{number}.wav", "duration": seconds, "text": "a b", "language": "en"})
    write_manifest(tmp_path / "m.jsonl", rows)
    for name, model in (("ours", whisper), ("theirs", f"hf:{whisper}")):
        silent = () if name == "theirs" else ("--on-no-speech", "keep")
        result = call("evaluate", "--model", model, "--data", tmp_path / "m.jsonl", "-o", tmp_path / name, *silent)
        assert result.exit_code == 0, result.output
    ours, theirs = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("ours", "theirs"))
    assert theirs["decoding"].startswith("transformers ")
    assert (theirs["wer"], theirs["cer"], theirs["model"]) == (ours["wer"], ours["cer"], "whisper")
    audio = [tmp_path / f"{number}.wav" for number in range(2)]
    lines = call("transcribe", "--model", f"hf:{whisper}", *audio).stdout
    assert lines == call("transcribe", "--model", whisper, "--on-no-speech", "keep", *audio).stdout
    done = call("transcribe", "--model", f"hf:{whisper}", *audio, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "0.txt").read_text().strip() == lines.splitlines()[0].split("\t")[1]
    again = call("transcribe", "--model", f"hf:{whisper}", *audio, "-o", tmp_path / "out")
    assert "2 done before" in again.stderr


def test_what_is_refused(whisper, ctc, tmp_path, monkeypatch):
    def wrong(*arguments):
        return one_line(call("evaluate", "--data", tmp_path / "m.jsonl", "-o", tmp_path / "out", *arguments))

    write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "duration": 1.0, "text": "a"}])
    assert "--decoding: recognisers of other software" in wrong("--model", f"hf:{whisper}", "--decoding", "beam")
    assert "overrides: recognisers" in wrong("--model", f"hf:{whisper}", "decoding.beam=4")
    assert "--language: only a Whisper" in wrong("--model", f"hf:{ctc}", "--language", "en")
    assert "no such model folder" in wrong("--model", "hf:./nowhere")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="only evaluate and transcribe run models of other software"):
        load(f"hf:{whisper}")
    config = json.loads((ctc / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Wav2Vec2Model"]}))
    with pytest.raises(ModelError, match=r"Wav2Vec2Model\) is no speech recogniser of transformers"):
        load_baseline(f"hf:{tmp_path}")
    with pytest.raises(ModelError, match=r"transformers .* fails"):
        replace(load_baseline(f"hf:{ctc}", device="cpu"), write=lambda _: 1 / 0).recognize(WAVEFORMS)
    deaf = SimpleNamespace(tokenizer=None)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: deaf)
    with pytest.raises(ModelError, match="Wav2Vec2ForCTC hears nothing"):
        load_baseline(f"hf:{ctc}", device="cpu")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="give no times of words"):
        next(load_baseline(f"hf:{whisper}").try_transcribe_many(WAVEFORMS, word_times=True))


def test_a_prefix_alone_names_no_model():
    for prefix in ("hf:", "ct2:"):
        with pytest.raises(ModelError, match=f"^--model: {prefix} names no model; write hf:ID_OR_FOLDER or ct2:FOLDER"):
            load_baseline(prefix, device="cpu")
