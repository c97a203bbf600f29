import json
from itertools import permutations
from pathlib import Path

import pytest

from kikitori.errors import ConfigError, DataError
from kikitori.scoring.leaderboard.results import (
    Dataset,
    Result,
    format_results,
    is_result_file,
    joined,
    parse_dataset,
    read_results,
    results_of,
    set_of,
)
from kikitori.scoring.report import Prediction
from kikitori.types import Utterance

LINES = "".join(
    f"{line}\n"
    for line in (
        '{"audio_filepath": "sample_0", "duration": 12.48, "time": 0.03125, "text": "It\'s “good”", "pred_text": ""}',
        '{"audio_filepath": "a/b", "duration": 5, "time": 1e-05, "text": "naïve 日本\u2028x\\n", '
        '"pred_text": "\\"q\\" \\\\"}',
        '{"audio_filepath": "c", "duration": null, "time": null, "text": "x", "pred_text": "y", '
        '"parent_id": 7, "chunk_index": 0}',
    )
)


def test_files_come_back_byte_for_byte(tmp_path):
    file = tmp_path / "MODEL_a-b_DATASET_c-d_e_test.jsonl"
    file.write_bytes(LINES.encode())
    results = read_results(file)
    assert format_results(results).encode() == file.read_bytes()
    assert [each.extra for each in results] == [{}, {}, {"parent_id": 7, "chunk_index": 0}]


def test_rows_are_those_of_the_leaderboards_own_writer():
    """Keys in its order, `json.dumps` without ASCII escapes, a name for what has none."""
    prediction = Prediction(Utterance(Path("x.wav"), 1.5, "It’s", utt_id="u1"), "its", 0.25)
    chunk = Utterance(Path("x.wav"), 2.0, "Yes", extra={"chunk_index": 1, "parent_id": "p", "room": "x"})
    results, skipped = results_of([prediction, Prediction(chunk, "yes", 0.5)])
    datum = {"audio_filepath": "u1", "duration": 1.5, "time": 0.25, "text": "It’s", "pred_text": "its"}
    second = {"audio_filepath": "sample_1", "duration": 2.0, "time": 0.5, "text": "Yes", "pred_text": "yes"}
    second |= {"parent_id": "p", "chunk_index": 1}
    assert format_results(results) == "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in (datum, second))
    assert skipped == 0


@pytest.mark.parametrize(
    "text", [None, "", " ! ", "uh, um", "ignore_time_segment_in_scoring", "Ignore time segment in scoring"]
)
def test_what_the_leaderboard_skips(text):
    assert results_of([Prediction(Utterance(Path("x.wav"), 1.0, text), "yes", 0.1)]) == ([], 1)


def test_names_of_files():
    named = parse_dataset("librispeech:test.clean")
    assert named == Dataset("hf-audio/open-asr-leaderboard", "librispeech", "test.clean")
    name = named.file_name("org/model-1")
    assert name == "MODEL_org-model-1_DATASET_hf-audio-open-asr-leaderboard_librispeech_test.clean.jsonl"
    assert is_result_file(Path("x") / name)
    assert set_of(Path(name)) == "hf-audio-open-asr-leaderboard_librispeech_test.clean"
    own = parse_dataset("ArtificialAnalysis/Earnings22-Cleaned-AA-chunked::test")
    assert own.file_name("a/b") == "MODEL_a-b_DATASET_ArtificialAnalysis-Earnings22-Cleaned-AA-chunked__test.jsonl"
    assert not is_result_file(Path("predictions.jsonl"))


@pytest.mark.parametrize("text", ["librispeech", ":a:test", "a:b:", "a:b:c:d", "a b:test", "a/../b::test", "x:"])
def test_what_names_no_data_set(text):
    with pytest.raises(ConfigError, match=f"--set: '{text}' is no data set; write NAME:SPLIT of the public sets"):
        parse_dataset(text)


def chunk(parent, index, text, **changes):
    values = {"duration": 1.0 + index, "time": 0.5, "text": f"said in {parent}"} | changes
    return Result(f"{parent}-{index}", pred_text=text, extra={"parent_id": parent, "chunk_index": index}, **values)


def test_chunks_are_joined_in_their_order_whatever_that_of_the_file():
    chunks = [chunk("b", 0, " one "), chunk("b", 1, ""), chunk("b", 2, "two"), chunk("a", 0, "three")]
    for order in permutations(chunks):
        assert joined(order) == [
            Result("a", 1.0, 0.5, "said in a", "three"),
            Result("b", 6.0, 1.5, "said in b", "one two"),
        ]
    untimed = [chunk("a", 0, "x", time=None), chunk("a", 1, "y")]
    assert joined(untimed) == [Result("a", 3.0, None, "said in a", "x y")]
    plain = [Result("b", 1.0, 1.0, "x", "y"), Result("a", 1.0, 1.0, "x", "y")]
    assert joined(plain) == plain


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([chunk("a", 0, "x"), chunk("a", 2, "y")], "a: its chunks are 0, 2; evaluate all chunks from 0 on, each once"),
        ([chunk("a", 0, "x"), chunk("a", 0, "y")], "a: its chunks are 0, 0"),
        ([chunk("a", 0, "x"), Result("z", 1.0, 1.0, "x", "y")], "z: no parent_id and chunk_index, which others have"),
        (
            [chunk("a", "0", "x")] if False else [Result("z", 1.0, 1.0, "", "", {"parent_id": "a"})],
            "z: no parent_id and",
        ),
    ],
)
def test_chunks_that_are_missing_are_named(chunks, message):
    with pytest.raises(DataError, match=message):
        joined(chunks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no rows"),
        (b"{", "jsonl:1: not JSON"),
        (b"[]\n", "jsonl:1: not all of audio_filepath, duration, time, text, pred_text are there"),
        (LINES.replace("12.48", '"12"').encode(), "jsonl:1: 'duration' is no number of seconds"),
        (LINES.replace("1e-05", "NaN").encode(), "jsonl:2: 'time' is no number of seconds"),
        (LINES.replace('"x", "pred_text"', '3, "pred_text"').encode(), "jsonl:3: 'text' is no text"),
        (b"\xff", "not a UTF-8 text file"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path / "r.jsonl")
