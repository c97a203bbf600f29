"""Speech LLMs with requests of their own: Voxtral and Granite Speech write what transformers' own calls write.

Their processors need packages that are not here (mistral-common, torchaudio); where they are, they are used.
"""

import base64
import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoProcessor,
    BatchFeature,
    GraniteSpeechConfig,
    GraniteSpeechFeatureExtractor,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechProcessor,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.granite_speech import feature_extraction_granite_speech as granite_features

from kikitori.baselines.load import load_baseline
from kikitori.errors import ConfigError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.safety.config import quiet_transformers
from tests.tiny import SIZES, shake, tiny_bpe, tiny_waveforms

WAVEFORMS = tiny_waveforms(3)
LABELS = 6
AUDIO, BEGIN_AUDIO, TRANSCRIBE = 24, 25, 34
TOOLS = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]")
PARTS = ("[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *TOOLS, "[IMG]", "<pad>", *PARTS, "[TOOL_CONTENT]"]
SPECIAL += [f"<SPECIAL_{number}>" for number in range(len(SPECIAL), 40)]
SPECIAL[AUDIO], SPECIAL[BEGIN_AUDIO], SPECIAL[TRANSCRIBE] = "[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]"
QUESTION = "<|audio|>can you transcribe the speech into a written format?"


@pytest.fixture(autouse=True)
def few_labels(monkeypatch):
    monkeypatch.setattr("kikitori.baselines.by_transformers.MOST_LABELS", LABELS)


def written(model, processor, inputs):
    with torch.inference_mode(), quiet_transformers():
        labels = model.generate(**inputs, max_new_tokens=LABELS)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(labels, skip_special_tokens=True)[0].strip()


def found(baseline, waveforms):
    return [result[0].text for result in baseline.recognize(waveforms)]


def save(model, folder, spread):
    torch.manual_seed(0)
    shake(model, 0, spread)
    with quiet_transformers():
        model.eval().save_pretrained(folder)


def voxtral(folder):
    """A tiny Voxtral with the tokenizer file of its maker: bytes, and special tokens where they have to be."""
    encoder = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96}
    encoder |= {"num_mel_bins": 8, "model_type": "voxtral_encoder"}
    text = {**SIZES, "num_key_value_heads": 2, "vocab_size": 296, "head_dim": 8, "model_type": "llama"}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    model = VoxtralForConditionalGeneration(VoxtralConfig(audio_config=encoder, text_config=text, audio_token_id=AUDIO))
    save(model, folder, 0.5)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(WhisperFeatureExtractor(feature_size=8).to_dict() | {"processor_class": "VoxtralProcessor"})
    )
    sizes = {"num_vocab_tokens": 256, "default_vocab_size": 296, "default_num_special_tokens": len(SPECIAL)}
    tekken = {
        "config": {"pattern": r"[^\s]+|\s+", "version": "v7", **sizes},
        "vocab": [
            {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None}
            for byte in range(256)
        ],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(SPECIAL)],
        "audio": {
            "sampling_rate": SAMPLE_RATE,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 8, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    (folder / "tekken.json").write_text(json.dumps(tekken))
    return model


class Requests:
    """Writes Voxtral's requests as its processor does, which needs mistral-common."""

    def __init__(self):
        self.feature_extractor = WhisperFeatureExtractor(feature_size=8)
        self.tokenizer = SimpleNamespace()

    def apply_transcription_request(self, audio, model_id, language=None, sampling_rate=None, format=None):  # noqa: A002
        assert (bool(model_id), language, sampling_rate, format) == (True, None, SAMPLE_RATE, "wav")
        row = [1, 3, BEGIN_AUDIO, *[AUDIO] * 375, 4, TRANSCRIBE]
        features = self.feature_extractor(audio, sampling_rate=sampling_rate, return_tensors="pt")["input_features"]
        ids = torch.tensor([row] * len(audio))
        return BatchFeature({"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": features})

    def batch_decode(self, rows, skip_special_tokens):
        return [
            " ".join(str(label) for label in row if label >= len(SPECIAL) or not skip_special_tokens)
            for row in rows.tolist()
        ]


def test_voxtral_is_asked_to_transcribe(tmp_path, monkeypatch):
    model = voxtral(tmp_path)
    processor = Requests()
    monkeypatch.setattr("kikitori.baselines.by_transformers.require", lambda *_, **__: None)
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: processor)
    baseline = load_baseline(f"hf:{tmp_path}", device="cpu")
    settings = {"model_id": "some", "sampling_rate": SAMPLE_RATE, "format": "wav"}
    expected = [
        written(model, processor, processor.apply_transcription_request([each], **settings)) for each in WAVEFORMS
    ]
    assert found(baseline, WAVEFORMS) == expected
    assert baseline.longest_s == 30.0


def test_voxtral_by_its_own_processor(tmp_path):
    pytest.importorskip("mistral_common")
    model = voxtral(tmp_path)
    baseline = load_baseline(f"hf:{tmp_path}", device="cpu")
    processor = AutoProcessor.from_pretrained(tmp_path)
    settings = {"model_id": "mistralai/Voxtral-Mini-3B-2507", "sampling_rate": SAMPLE_RATE, "format": ["wav"]}
    expected = [
        written(model, processor, processor.apply_transcription_request(each, **settings)) for each in WAVEFORMS
    ]
    assert found(baseline, WAVEFORMS) == expected
    assert any(expected)


class Mel(torch.nn.Module):
    """Takes torchaudio's place where it is not: some positive numbers for each 10 ms."""

    def __init__(self, n_fft, hop_length, n_mels, **_):
        super().__init__()
        self.n_fft, self.hop_length, self.n_mels = n_fft, hop_length, n_mels

    def forward(self, audio):
        window = torch.hann_window(self.n_fft)
        spectrum = torch.stft(audio, self.n_fft, self.hop_length, window=window, return_complex=True)
        return spectrum[:, : self.n_mels].abs() ** 2


def granite(folder, **settings):
    tokenizer = tiny_bpe(extra=("<|audio|>",)).tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    encoder = {"input_dim": 160, "num_layers": 1, "hidden_dim": 16, "num_heads": 2, "output_dim": 8}
    projector = {"model_type": "blip_2_qformer", "hidden_size": 16, "encoder_hidden_size": 16, "vocab_size": 10}
    projector |= {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "cross_attention_frequency": 1,
    }
    text = {**SIZES, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "model_type": "granite"}
    config = GraniteSpeechConfig(
        encoder_config={**encoder, "context_size": 20, "max_pos_emb": 32},
        projector_config=projector,
        text_config={**text, "eos_token_id": 2, "bos_token_id": 1},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        **{"has_lora_adapter": False, **settings},
    )
    model = GraniteSpeechForConditionalGeneration(config)
    save(model, folder, 0.3)
    processor = GraniteSpeechProcessor(GraniteSpeechFeatureExtractor(), tokenizer)
    with quiet_transformers():
        processor.save_pretrained(folder)
    return model, processor


@pytest.fixture
def torchaudio(monkeypatch):
    if find_spec("torchaudio") is None:
        transforms = SimpleNamespace(MelSpectrogram=lambda sample_rate, win_length, **sizes: Mel(**sizes))  # noqa: ARG005
        monkeypatch.setattr(granite_features, "torchaudio", SimpleNamespace(transforms=transforms), raising=False)
        monkeypatch.setattr(granite_features, "requires_backends", lambda *_: None)
        monkeypatch.setattr("kikitori.baselines.by_transformers.require", lambda *_, **__: None)


def test_granite_speech_is_asked_as_its_cards_say(tmp_path, torchaudio):  # noqa: ARG001
    model, processor = granite(tmp_path)
    baseline = load_baseline(f"hf:{tmp_path}", device="cpu")
    expected = [written(model, processor, processor(QUESTION, each, return_tensors="pt")) for each in WAVEFORMS]
    assert [text for each in WAVEFORMS for text in found(baseline, [each])] == expected
    assert len({*expected}) > 1
    together = found(baseline, WAVEFORMS)  # its encoder sees the padding, so that these may differ
    assert len(together) == len(WAVEFORMS)


def test_an_adapter_that_is_no_part_of_the_weights_is_refused(tmp_path, torchaudio):  # noqa: ARG001
    granite(tmp_path, has_lora_adapter=True)
    with pytest.raises(ModelError, match="its LoRA adapter is no part of its weights; merge it"):
        load_baseline(f"hf:{tmp_path}", device="cpu")


@pytest.mark.parametrize(("kind", "package"), [("voxtral", "mistral_common"), ("granite_speech", "torchaudio")])
def test_the_package_that_a_processor_needs_is_named(tmp_path, monkeypatch, kind, package):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    monkeypatch.setattr("kikitori.io.extras.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=f"its processor needs the package {package}, which is not installed; pip"):
        load_baseline(f"hf:{tmp_path}", device="cpu")
