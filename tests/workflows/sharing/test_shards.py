"""Shards of transcription and evaluation: each has its share, and together they are what one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf

from kikitori.cli.common import SOME_FAILED
from kikitori.data.corruption import parse_corruption
from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.errors import ConfigError, DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import locked
from kikitori.io.recordings import find_recordings
from kikitori.loading import load
from kikitori.scoring.comparison.robustness import folder_of
from kikitori.workflows.evaluate import FLAGGED, Searching, Setting
from kikitori.workflows.sharing.evaluation import JOURNAL, Pooled, Sharing, forget, gather, predict_into
from kikitori.workflows.sharing.journal import JOURNAL as FINISHED
from kikitori.workflows.sharing.shards import WHOLE, Shard, read_shard
from kikitori.workflows.transcribe import Outputs, Transcribing, transcribe_into
from tests.commands import call, one_line
from tests.engine.test_pool import Shuffled
from tests.tiny import save_tiny, tiny_acoustic_model, tiny_waveform


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, tiny_acoustic_model())
    return folder


@pytest.fixture(scope="module")
def recognizer(model):
    return load(model)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    rows = []
    for seed in range(5):
        seconds = 0.5 + 0.2 * (seed * 3 % 5)
        sf.write(folder / f"{seed}.wav", tiny_waveform(seconds, seed), SAMPLE_RATE)
        rows.append({"audio_filepath": f"{seed}.wav", "duration": seconds, "text": f"the quick fox {seed}"})
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


class Here(Shuffled):
    """The same with a recogniser."""

    def __init__(self, recognizer, **options):
        super().__init__(**options)
        self.recognizer = recognizer

    def run(self, work, batches):
        return super().run(lambda _, batch: work(self.recognizer, batch), batches)


def _texts(folder):
    return {file.name: file.read_text() for file in folder.glob("*.txt")}


def _rows(folder):
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for row in rows:
        row["time"] = 0.0
        for candidate in row["nbest"]:  # the last digits depend on the batch
            candidate["score"] = round(candidate["score"], 3)
            candidate["scores"] = {name: round(score, 3) for name, score in candidate["scores"].items()}
    return rows


def test_shards_are_named_or_those_of_torchrun():
    items = [*range(7)]
    shards = [read_shard(f"{number}/3") for number in (1, 2, 3)]
    assert sorted(item for shard in shards for item in shard.of(items)) == items
    assert len({shard.part for shard in shards}) == 3
    assert read_shard(None, {}) == read_shard("1/1") == WHOLE
    assert (WHOLE.part, WHOLE.of(items)) == ("", items)
    assert read_shard(None, {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == Shard(3, 4)
    for wrong in ("0/2", "3/2", "1", "a/b", "-1/2", "1/0"):
        with pytest.raises(ConfigError, match="no shard; write 1/4"):
            read_shard(wrong)


def test_transcripts_of_shards_are_those_of_one_process(model, speech, tmp_path):
    command = ["transcribe", speech, "--model", model, "-f", "txt"]
    assert call(*command, "-o", tmp_path / "whole").exit_code == 0
    for number in (2, 1):
        assert call(*command, "-o", tmp_path / "shared", "--shard", f"{number}/2").exit_code == 0
    assert _texts(tmp_path / "shared") == _texts(tmp_path / "whole")
    assert not (tmp_path / "shared" / FINISHED).exists()
    again = call(*command, "-o", tmp_path / "shared")
    assert again.stderr == "kikitori: 5 of 5 files, 0:00.0 of audio, 5 done before\n"
    lines = call(*command[:-2], "--shard", "2/2").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(speech / "1.wav"), str(speech / "3.wav")]


def test_a_shard_has_one_writer_and_the_whole_is_alone(tmp_path):
    with locked(tmp_path, ".1-of-2"), locked(tmp_path, ".2-of-2"):
        for part in (".1-of-2", ""):
            with pytest.raises(DataError, match="another run"), locked(tmp_path, part):
                pass
    with locked(tmp_path), pytest.raises(DataError, match="another run"), locked(tmp_path, ".1-of-2"):
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("kikitori.io.files.LOOK_S", 0.05)


def test_a_pool_writes_the_same_files_and_loses_what_ends_it_alone(recognizer, speech, tmp_path):
    recordings = find_recordings([speech / f"{number}.wav" for number in range(5)])
    options = {"batch_size": 2, "word_times": False}
    for name, pool in (("here", None), ("pool", Here(recognizer, size=1))):
        (tmp_path / name).mkdir()
        outputs = Outputs(tmp_path / name, ["txt"])
        done = [*transcribe_into(Transcribing(recognizer), recordings, outputs, pool=pool, **options)]
        assert {each.recording for each in done} == {*recordings}
    assert _texts(tmp_path / "pool") == _texts(tmp_path / "here")

    deadly = Here(recognizer, deadly=[speech / "3.wav"], size=1)
    (tmp_path / "lost").mkdir()
    outputs = Outputs(tmp_path / "lost", ["txt"])
    done = [*transcribe_into(Transcribing(recognizer), recordings, outputs, pool=deadly, **options)]
    assert {each.recording.name: each.error is not None for each in done} == {
        **dict.fromkeys("0124", False),
        "3": True,
    }
    again = [*transcribe_into(Transcribing(recognizer), recordings, outputs, pool=Here(recognizer), **options)]
    assert [each.recording.name for each in again if each.transcript is not None] == ["3"]
    assert _texts(tmp_path / "lost") == _texts(tmp_path / "here")


def test_an_evaluation_in_shards_is_that_of_one_process(model, speech, tmp_path):
    command = ["evaluate", "--model", model, "--data", speech / "manifest.jsonl", "--corrupt", "clipping:20"]
    assert call(*command, "-o", tmp_path / "whole").exit_code == 0
    first = call(*command, "-o", tmp_path / "shared", "--shard", "2/2")
    assert (first.exit_code, first.stdout) == (0, "")
    assert first.stderr == "kikitori: shard 2 of 2 is done; the last one writes the report\n"
    last = call(*command, "-o", tmp_path / "shared", "--shard", "1/2")
    assert last.stdout.splitlines()[0].startswith("set")
    for folder in ("", folder_of(Path(), "clipping:20")):
        assert _rows(tmp_path / "shared" / folder) == _rows(tmp_path / "whole" / folder)
    assert not [*(tmp_path / "shared").rglob(f"{JOURNAL}*")]
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "shared")]
    assert reports[0]["wer"] == reports[1]["wer"]


def test_an_evaluation_that_was_killed_goes_on(recognizer, speech, tmp_path):
    utterances = read_manifest(speech / "manifest.jsonl").utterances

    def run(folder, pool=None, **kill):
        folder.mkdir(exist_ok=True)
        left = kill.get("after", 99)
        counted = []

        def progress(done):
            nonlocal left
            counted.append(done)
            left -= done
            if left < 0:
                raise KeyboardInterrupt

        sets = {"a": utterances}
        pooled = None if pool is None else Pooled(pool, recognizer.decoding, FLAGGED)
        sharing, setting = Sharing(Searching(recognizer, recognizer.decoding), pooled), Setting(batch_size=1)
        predict_into(folder, sets, setting, sharing, progress)
        found = gather(folder, sets, setting, sharing)
        return [each.pred_text for each in found["a"]], counted

    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", after=2)
    journal = tmp_path / "killed" / JOURNAL
    with journal.open("ab") as out:
        out.write(b'{"key": "torn')
    assert run(tmp_path / "killed") == (whole, [3, 1, 1])
    assert run(tmp_path / "killed") == (whole, [5])
    audio = speech / "2.wav"
    os.utime(audio, ns=(0, audio.stat().st_mtime_ns + 10**9))  # another recording, for all we know
    assert run(tmp_path / "killed") == (whole, [4, 1])
    assert run(tmp_path / "pool", Here(recognizer)) == (whole, [0, *[1] * 5])
    assert forget(tmp_path / "killed")
    assert not journal.exists()
    assert not forget(tmp_path / "killed")
    journal.write_text("{}\n")
    with pytest.raises(DataError, match=r"predictions:1: no line of an evaluation; remove the file"):
        run(tmp_path / "killed")


def test_rows_that_end_a_process_are_empty_predictions(recognizer, speech, tmp_path):
    utterances = read_manifest(speech / "manifest.jsonl").utterances

    pool = Here(recognizer, deadly=[utterances[3]])
    sets, setting = {"a": utterances}, Setting(batch_size=2)
    sharing = Sharing(Searching(recognizer, recognizer.decoding), Pooled(pool, recognizer.decoding, FLAGGED))
    assert gather(tmp_path, sets, setting, sharing) is None
    predict_into(tmp_path, sets, setting, sharing)
    found = gather(tmp_path, sets, setting, sharing)
    other = Setting(batch_size=2, corruption=parse_corruption("noise:10"))
    assert gather(tmp_path, sets, other, sharing) is None
    assert [each.error for each in found["a"]] == [None] * 3 + [
        f"{speech / '3.wav'}: died",
        None,
    ]


def test_wrong_calls(model, speech, tmp_path):
    data = ["--model", model, "--data", speech / "manifest.jsonl", "-o", tmp_path]
    assert "--workers: this process works alone; add --engine ray" in one_line(call("evaluate", *data, "--workers", 2))
    assert "--shard 3/2: no shard" in one_line(call("evaluate", *data, "--shard", "3/2"))
    missing = call("transcribe", speech / "none.wav", "--model", model, "--shard", "1/2")
    assert missing.exit_code == SOME_FAILED


@pytest.mark.slow
def test_torchrun_waits_for_the_others_when_a_recording_of_one_fails(model, speech, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    files = [tmp_path / "bad.wav", *(speech / f"{number}.wav" for number in range(5))]
    run = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "kikitori", "transcribe", *files]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, run), "--model", model, "-o", tmp_path / "out"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "kikitori: " in done.stderr
    assert "bad.wav" in done.stderr
    assert {*_texts(tmp_path / "out")} == {f"{number}.txt" for number in range(5)}
