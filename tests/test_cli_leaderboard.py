"""`kikitori leaderboard` on predictions as `kikitori evaluate` writes them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kikitori.scoring.conditions import Conditions
from kikitori.scoring.leaderboard.results import format_results, read_results
from kikitori.scoring.report import Prediction, build_report, write_report
from kikitori.types import Hypothesis, Utterance
from tests.commands import call, one_line

CLEAN = Conditions("cpu", "float32", 8, 1)


def prediction(name, text, pred_text, **changes):
    utterance = Utterance(Path(f"{name}.wav"), 2.0, text, utt_id=name, language="en", **changes)
    return Prediction(utterance, pred_text, 0.25, nbest=(Hypothesis((), pred_text),))


CALLS = [
    prediction("p-1", "yes we can", "can", extra={"parent_id": "p", "chunk_index": 1}),
    prediction("p-0", "yes we can", "Yes, we", extra={"parent_id": "p", "chunk_index": 0}),
]
SETS = {
    "data/clean.jsonl": [prediction("a", "Hello there", "hello their"), prediction("b", "Uh.", "")],
    "data/calls.jsonl": CALLS,
}


def evaluated(folder, sets, search="greedy", conditions=CLEAN):
    report = build_report(
        sets, normalizer="open_asr_en", decoding=search, model="m", versions={"kikitori": "0"}, conditions=conditions
    )
    folder.mkdir()
    write_report(folder, report, sets)
    return folder


@pytest.fixture
def report(tmp_path):
    return evaluated(tmp_path / "report", SETS)


NAMED = ("--set", "clean.jsonl=librispeech:test.clean", "--set", "data/calls.jsonl=AA/Calls-chunked::test")


def test_a_submission(report, tmp_path):
    result = call("leaderboard", report, "--model-id", "org/m", *NAMED, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "kikitori: data/clean.jsonl: 1 recording skipped, as the leaderboard does\n" in result.stderr
    assert (
        "| hf-audio/open-asr-leaderboard:librispeech:test.clean | 1 | 50.00 | 1 | 0 | 0 | 2 | 8.00 |" in result.stdout
    )
    assert "| AA/Calls-chunked::test | 1 | 0.00 | 0 | 0 | 0 | 3 | 8.00 |" in result.stdout
    assert "| mean of sets |  | 25.00 |" in result.stdout
    files = sorted((tmp_path / "out" / "results").iterdir())
    assert [file.name for file in files] == [
        "MODEL_org-m_DATASET_AA-Calls-chunked__test.jsonl",
        "MODEL_org-m_DATASET_hf-audio-open-asr-leaderboard_librispeech_test.clean.jsonl",
    ]
    assert files[0].read_text() == (
        '{"audio_filepath": "p-1", "duration": 2.0, "time": 0.25, "text": "yes we can", "pred_text": "can", '
        '"parent_id": "p", "chunk_index": 1}\n'
        '{"audio_filepath": "p-0", "duration": 2.0, "time": 0.25, "text": "yes we can", "pred_text": "Yes, we", '
        '"parent_id": "p", "chunk_index": 0}\n'
    )
    assert all(format_results(read_results(file)) == file.read_text() for file in files)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["mean_wer"], scores["rtfx"], scores["normalizer"]) == (25.0, 8.0, "open_asr_en 1")
    assert scores["evaluation"]["conditions"].startswith("batches of 8 in float32 on cpu")
    assert "run_eval.py" in (tmp_path / "out" / "README.md").read_text()
    again = call("leaderboard", *files)
    assert again.exit_code == 0
    table = [line.partition("|")[2].partition("|")[2] for line in again.stdout.splitlines()]
    assert sorted(table) == sorted(line.partition("|")[2].partition("|")[2] for line in result.stdout.splitlines())


def test_result_files_of_the_same_set_are_told_apart(report, tmp_path):
    for place in ("one", "two"):
        call("leaderboard", report, "--model-id", f"org/{place}", *NAMED, "-o", tmp_path / place)
    files = [next((tmp_path / place / "results").iterdir()) for place in ("one", "two")]
    result = call("leaderboard", *files)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 5


def test_a_damaged_report_beside_predictions_says_nothing_of_them(report, tmp_path):
    (report / "report.json").write_text("{")
    result = call("leaderboard", report, "--model-id", "org/m", *NAMED, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["mean_wer"], scores["evaluation"]) == (25.0, {})


def test_recordings_that_failed_are_named(tmp_path):
    failed = replace(CALLS[1], pred_text="", error="gone", nbest=())
    report = evaluated(tmp_path / "report", {"calls.jsonl": [CALLS[0], failed]})
    result = call("leaderboard", report, "--model-id", "a/b", "--set", "calls=x:test", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "kikitori: warning: calls.jsonl: 1 failed and count as empty, such as p-0\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "-o: no folder given; name the folder for the result files"),
        (("-o", "OUT"), "--model-id: '' is no hub id; write ORG/NAME"),
        (("-o", "OUT", "--model-id", "m"), "--model-id: 'm' is no hub id"),
        (
            ("-o", "OUT", "--model-id", "o/m"),
            "--set: not said which set data/clean.jsonl is; add --set clean.jsonl=NAME:",
        ),
        (("-o", "OUT", "--model-id", "o/m", "--set", "x"), "--set: 'x' names no manifest"),
        (
            ("-o", "OUT", "--model-id", "o/m", "--set", "x=a:b"),
            "--set: 'x' is no set of the predictions; they have data/c",
        ),
        (("-o", "OUT", "--model-id", "o/m", "--set", "clean=a"), "--set: 'a' is no data set; write NAME:SPLIT"),
        (
            ("-o", "OUT", "--model-id", "o/m", "--set", "clean=a:b", "--set", "calls=a:b"),
            "--set: two manifests are the same set; name each set once",
        ),
        (
            ("-o", "OUT", "--model-id", "o/m", "--set", "clean=a:b", "--set", "clean.jsonl=a:c"),
            "--set: 'clean.jsonl' is named twice; name each manifest once",
        ),
        (("missing",), "missing: no such file or folder; check the path"),
    ],
)
def test_wrong_calls(report, tmp_path, arguments, line):
    arguments = [tmp_path / "out" if each == "OUT" else each for each in arguments]
    assert line in one_line(call("leaderboard", report, *arguments))
    assert not (tmp_path / "out").exists()


def test_evaluations_that_do_not_go_together(report, tmp_path):
    more = {"other.jsonl": SETS["data/clean.jsonl"]}
    other = evaluated(tmp_path / "other", more, search="joint")
    call_all = ("--model-id", "o/m", *NAMED, "--set", "other=x:test", "-o", tmp_path / "out")
    assert "has another model or search (m, joint); evaluate all" in one_line(
        call("leaderboard", report, other, *call_all)
    )
    noisy = evaluated(tmp_path / "noisy", more, conditions=replace(CLEAN, corruption="noise:10"))
    assert "was made with corruption noise:10, seed 0;" in one_line(call("leaderboard", report, noisy, *call_all))
    file = tmp_path / "MODEL_a_DATASET_b__c.jsonl"
    file.write_text("{}\n")
    assert "is of no use here" in one_line(call("leaderboard", file, "-o", tmp_path / "out"))
    assert "not all of audio_filepath" in one_line(call("leaderboard", file))
