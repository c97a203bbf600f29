"""Folders of CTranslate2 as faster-whisper is called for them; faster-whisper itself is not part of the tests."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from kikitori.baselines import by_faster_whisper
from kikitori.baselines.load import load_baseline
from kikitori.errors import ConfigError, ModelError
from kikitori.workflows.evaluate import Setting, evaluate_into
from tests.tiny import tiny_waveforms


class Model:
    """In the place of faster-whisper's `WhisperModel`: writes two segments, and keeps what it was called with."""

    supported_languages = ("en", "ja")
    model = SimpleNamespace(is_multilingual=True)

    def __init__(self, folder, **settings):
        self.settings, self.calls = settings, []
        if "broken" in folder:
            raise RuntimeError("bad magic\nand more")

    def transcribe(self, waveform, **settings):
        self.calls.append(settings)
        return [SimpleNamespace(text=f" {len(waveform)}"), SimpleNamespace(text=" samples")], None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    module = ModuleType("faster_whisper")
    module.WhisperModel, module.__spec__ = Model, ModuleSpec("faster_whisper", None)
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    monkeypatch.setattr(by_faster_whisper, "version", lambda _: "9.9")
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_recordings_are_decoded_greedily_one_at_a_time(folder, tmp_path):
    baseline = load_baseline(f"ct2:{folder}", device="cpu", language="ja")
    waveforms = tiny_waveforms(2)
    found = [result[0].text for result in baseline.recognize(waveforms)]
    assert found == [f"{len(waveform)} samples" for waveform in waveforms]
    model = baseline.write.model
    assert model.settings.items() >= {"device": "cpu", "compute_type": "float32", "local_files_only": True}.items()
    assert all(each.items() >= {"language": "ja", "beam_size": 1, "temperature": 0.0}.items() for each in model.calls)
    assert (baseline.search, baseline.language) == ("faster-whisper 9.9", "ja")
    report, _ = evaluate_into(tmp_path / "out", baseline, {"a": []}, Setting())
    assert report["conditions"]["batch_size"] == 1


def test_what_is_refused(folder, monkeypatch):
    with pytest.raises(ConfigError, match="does not know 'de'"):
        load_baseline(f"ct2:{folder}", language="de")
    broken = folder / "broken"
    broken.mkdir()
    with pytest.raises(ModelError, match="no Whisper of CTranslate2"):
        load_baseline(f"ct2:{broken}")
    for name in ("model.bin", "tokenizer.json"):
        (broken / name).write_text("{}")
    with pytest.raises(ModelError, match=r"cannot be loaded \(bad magic\)"):
        load_baseline(f"ct2:{broken}")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setattr("kikitori.io.extras.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'kikitori\[baselines\]'"):
        load_baseline(f"ct2:{folder}")
