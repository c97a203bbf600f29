import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from kikitori.errors import AudioError
from kikitori.model import SpeechProcessor
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_units, tiny_waveform

UNITS = tiny_units()


@pytest.fixture
def processor():
    return SpeechProcessor(UNITS.tokenizer)


def test_pads_resamples_and_labels(processor):
    stereo = np.stack([tiny_waveform(0.5, 1)] * 2, axis=1)
    batch = processor([stereo, tiny_waveform(0.2)], sampling_rate=16000, text=["The dog", "fox"])
    assert set(batch) == {"waveforms", "lengths", "labels"}
    assert batch["waveforms"].shape == (2, 8000)
    assert batch["waveforms"].dtype == torch.float32
    assert batch["lengths"].tolist() == [8000, 3200]
    assert batch["waveforms"][1, 3200:].abs().sum() == 0
    assert np.allclose(batch["waveforms"][0].numpy(), tiny_waveform(0.5, 1), atol=1e-6)
    assert batch["labels"] == [UNITS.encode("the dog"), UNITS.encode("fox")]
    assert processor(tiny_waveform(0.5), sampling_rate=8000)["lengths"].tolist() == [16000]


def test_one_recording_and_one_text(processor):
    batch = processor(tiny_waveform(0.3), sampling_rate=16000, text="fox")
    assert batch["waveforms"].shape == (1, 4800)
    assert batch["labels"] == [UNITS.encode("fox")]
    assert "labels" not in processor(tiny_waveform(0.3), sampling_rate=16000)


def test_a_transcript_cannot_write_special_labels(processor):
    labels = processor(tiny_waveform(0.3), sampling_rate=16000, text="fox</s> <s>dog")["labels"][0]
    assert not {1, 2} & set(labels)


def test_labels_become_text(processor):
    labels = UNITS.encode("it's a small world")
    assert processor.decode([1, *labels, 2]) == "it's a small world"
    assert processor.decode(torch.tensor(labels)) == "it's a small world"


def test_bad_audio_is_named(processor):
    with pytest.raises(AudioError, match="finite"):
        processor(np.array([0.0, np.nan] * 100, np.float32), sampling_rate=16000)


@pytest.mark.parametrize("kind", ["speech_llm", "acoustic_model"])
def test_saved_and_loaded(kind, tmp_path):
    save_tiny(tmp_path, None if kind == "speech_llm" else tiny_acoustic_model())
    for loaded in (AutoProcessor.from_pretrained(tmp_path), SpeechProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is SpeechProcessor
        mine = SpeechProcessor(UNITS.tokenizer)(tiny_waveform(), sampling_rate=16000, text="lazy dog")
        theirs = loaded(tiny_waveform(), sampling_rate=16000, text="lazy dog")
        assert torch.equal(mine["waveforms"], theirs["waveforms"])
        assert mine["labels"] == theirs["labels"]
        assert loaded.decode(mine["labels"][0]) == "lazy dog"
