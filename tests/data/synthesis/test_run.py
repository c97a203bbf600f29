import json
import math
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import soundfile as sf

from kikitori.data.manifest import read_manifest
from kikitori.data.synthesis import run as module
from kikitori.data.synthesis.room import LEVEL_DB
from kikitori.data.synthesis.run import SynthesisConfig, VoiceVariation, plan_utterance, synthesize
from kikitori.data.synthesis.sentences import Sentence
from kikitori.data.synthesis.synthesizer import Sound, SpeechRequest
from kikitori.errors import DataError
from kikitori.io.audio import SAMPLE_RATE, read_audio

SENTENCES = [
    Sentence(f"Sentence number {number} is here.", f"Sentence number {number} is here.") for number in range(40)
]


@dataclass
class Bells:
    """An engine whose sound is a tone for each character."""

    voices: tuple[str, ...] = ("high", "low")
    failing: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    patience: int = 10**9

    def version(self):
        return "bells 1"

    def remedy(self, voice):
        return f"not {voice}"

    def speak(self, requests):
        return [self.sound(request) for request in requests]

    def sound(self, request: SpeechRequest):
        if len(self.asked) >= self.patience:
            raise KeyboardInterrupt
        self.asked.append(request.text)
        if request.text in self.failing:
            return None
        samples = np.arange(round(22050 * 0.06 * len(request.text) / request.speed))
        pitch = (440.0 if request.voice == "high" else 110.0) * request.pitch
        return Sound(np.sin(2 * math.pi * pitch * samples / 22050).astype(np.float32), 22050)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 6)


def config(**settings):
    return SynthesisConfig({"bells": Bells(**settings), "more": Bells(voices=("high",))}, "en", VoiceVariation(seed=3))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_recordings_and_their_manifest(tmp_path):
    report = synthesize(SENTENCES, config(), tmp_path)
    rows = read_manifest(tmp_path / "manifest.jsonl", split="train").utterances
    assert [row.text for row in rows] == [sentence.text for sentence in SENTENCES]
    assert {row.speaker for row in rows} == {"bells/high", "bells/low", "more/high"}
    assert all(row.extra == {"engine": row.speaker.split("/")[0], "synthetic": True} for row in rows)
    assert report.seconds == pytest.approx(sum(row.duration for row in rows))
    for row in rows:
        assert sf.info(row.audio_filepath).samplerate == SAMPLE_RATE
        waveform = read_audio(row.audio_filepath)
        assert len(waveform) == row.duration * SAMPLE_RATE
        assert 10 * np.log10(np.mean(waveform**2)) == pytest.approx(LEVEL_DB, abs=0.1)
    assert report.failures == {}


def test_readings_in_kana_beside_what_is_written(tmp_path):
    sentences = [Sentence("均等です。", "キントウデス。", "キントウデス。"), Sentence("ください。", "ください。")]
    synthesize(sentences, replace(config(), in_kana=True), tmp_path)
    rows = read_manifest(tmp_path / "manifest.jsonl").utterances
    assert [row.text for row in rows] == ["キントーデス", "クダサイ"]
    assert [row.extra["written"] for row in rows] == ["均等です。", "ください。"]


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_and_order_change_nothing(tmp_path, workers):
    for name, count in (("one", 1), ("many", workers)):
        (tmp_path / name).mkdir()
        synthesize(SENTENCES, config(), tmp_path / name, workers=count)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_a_take_is_drawn_from_seed_and_number_alone():
    plan = plan_utterance(SENTENCES[0], 5, config())
    assert plan == plan_utterance(SENTENCES[0], 5, config(failing=frozenset("x")))
    assert plan != plan_utterance(SENTENCES[0], 6, config())
    assert plan.request.text == SENTENCES[0].spoken
    planned = [plan_utterance(SENTENCES[0], number, config()) for number in range(600)]
    assert sum(plan.engine == "more" for plan in planned) == pytest.approx(300, abs=50)
    variation = VoiceVariation()
    rates = [plan.request.speed * plan.size for plan in planned]
    assert variation.speed[0] <= min(rates) < 0.83
    assert 1.12 < max(rates) <= variation.speed[1]


def test_a_killed_run_goes_on(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    synthesize(SENTENCES, config(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        synthesize(SENTENCES, config(patience=12), tmp_path / "killed")
    assert not (tmp_path / "killed" / "manifest.jsonl").exists()
    done = sum(len(json.loads(part.read_bytes())["rows"]) for part in (tmp_path / "killed" / ".parts").iterdir())
    rest = config()
    synthesize(SENTENCES, rest, tmp_path / "killed")
    assert 0 < done == len(SENTENCES) - sum(len(engine.asked) for engine in rest.engines.values())
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_failures_are_counted_and_left_out(tmp_path):
    odd = Sentence("Short", "Sh" + "o" * 200 + "rt")
    silent = frozenset({SENTENCES[1].spoken, SENTENCES[2].spoken})
    only = SynthesisConfig({"bells": Bells(voices=("low",), failing=silent)}, "en")
    report = synthesize([*SENTENCES[:4], odd], only, tmp_path)
    assert [row["text"] for row in report.rows] == [SENTENCES[0].text, SENTENCES[3].text, "Short"]
    assert report.failures == {"bells/low: no sound": 2}
    assert synthesize([*SENTENCES[:4], odd], only, tmp_path) == report


def test_sounds_that_cannot_be_the_sentence_are_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHARACTERS_PER_S", (2.0, 5.0))
    with pytest.raises(DataError, match=r"no sentence could be spoken: .* its length is not that of the sentence"):
        synthesize(SENTENCES[:3], config(), tmp_path)


def test_a_reading_is_kept(tmp_path):
    synthesize([Sentence("東京へ", "トーキョーエ", "トーキョーエ")], config(), tmp_path)
    (row,) = read_manifest(tmp_path / "manifest.jsonl").utterances
    assert (row.text, row.extra["reading"]) == ("東京へ", "トーキョーエ")


def test_a_folder_belongs_to_its_speech(tmp_path):
    with pytest.raises(DataError, match="no sentence is left"):
        synthesize([], config(), tmp_path)
    synthesize(SENTENCES[:3], config(), tmp_path)
    before = contents(tmp_path)
    for sentences, other in ((SENTENCES[:4], config()), (SENTENCES[:3], SynthesisConfig(config().engines, "en"))):
        with pytest.raises(DataError, match=r"synthesis\.json: is of other sentences or settings"):
            synthesize(sentences, other, tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "synthesis.json").unlink()
    with pytest.raises(DataError, match="holds a manifest of other speech"):
        synthesize(SENTENCES[:3], config(), tmp_path)


def test_opus_is_as_long(tmp_path):
    report = synthesize(SENTENCES[:2], SynthesisConfig({"bells": Bells()}, "en", audio_format="opus"), tmp_path)
    for row in report.rows:
        assert len(read_audio(tmp_path / row["audio_filepath"])) / SAMPLE_RATE == pytest.approx(
            row["duration"], abs=1e-4
        )


def test_progress_is_told_by_the_calling_thread(tmp_path):
    told = []
    here = threading.get_ident()
    synthesize(SENTENCES, config(), tmp_path, workers=3, progress=lambda n: told.append((n, threading.get_ident())))
    assert told == [*[(6, here)] * 6, (4, here)]
