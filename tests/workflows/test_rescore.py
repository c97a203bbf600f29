"""N-best lists on file: read, rescored, written again."""

import json
from pathlib import Path

import pytest
import soundfile as sf
import torch
from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.cli.common import WRONG_CALL
from kikitori.data.manifest import write_manifest
from kikitori.errors import ConfigError, DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.scorers.options import ScorerOptions
from kikitori.scorers.prior import save_prior
from kikitori.scoring.predictions import merged_lists, read_predictions
from kikitori.scoring.report import Prediction
from kikitori.search.options import RescoringSearch
from kikitori.text.units import vocabulary_fingerprint
from kikitori.types import Hypothesis, Utterance
from kikitori.workflows.rescore import rescore
from tests.tiny import save_tiny, save_tiny_llm, tiny_bpe, tiny_units, tiny_waveform


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A recogniser, language models, and an evaluation with n-best lists in `report`."""
    folder = tmp_path_factory.mktemp("world")
    save_tiny(folder / "model")
    save_tiny_llm(folder / "lm", "llama")
    save_tiny_llm(folder / "other", "qwen2", units=tiny_bpe())
    rows = []
    for index, seconds in enumerate([0.9, 0.4, 1.3]):
        sf.write(folder / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        row = {"audio_filepath": f"{index}.wav", "duration": seconds, "text": f"the fox {index}", "room": index}
        rows.append({**row, "language": "en", "speaker": "s"})
    rows.append({"audio_filepath": "lost.wav", "duration": 1.0, "text": "lost"})
    write_manifest(folder / "manifest.jsonl", rows)
    options = ["--decoding", "ctc_beam", "decoding.nbest=6"]
    arguments = ["--model", folder / "model", "--data", folder / "manifest.jsonl", "-o", folder / "report", *options]
    call("evaluate", *arguments)
    return folder


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_predictions_come_back_as_they_were_written(world):
    sets = read_predictions(world / "report" / "predictions.jsonl")
    ((name, rows),) = sets.items()
    assert name == str(world / "manifest.jsonl")
    assert [row.utterance.extra.get("room") for row in rows] == [0, 1, 2, None]
    assert rows[3].error is not None
    assert len(rows[0].nbest) == 6
    assert rows[0].nbest[0].text == rows[0].pred_text
    units = tiny_units()
    assert all(hypothesis.text == units.decode(hypothesis.labels) for hypothesis in rows[0].nbest)


def test_the_command(world, tmp_path):
    scales = ["decoding.scorers.lm.scale=0.5", "decoding.scorers.length.scale=0.1"]
    file, lm = world / "report" / "predictions.jsonl", f"decoding.scorers.lm.path={world / 'lm'}"
    result = call("rescore", file, lm, *scales, "--model", world / "model", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    changed = False
    for row, before in zip(rows_of(tmp_path / "out"), rows_of(world / "report"), strict=True):
        changed |= row["pred_text"] != before["pred_text"]
        assert (row["audio_filepath"], row["text"], row.get("room")) == (
            before["audio_filepath"], before["text"], before.get("room"),
        )  # fmt: skip
        for hypothesis in row["nbest"] if row["error"] is None else ():
            shares = hypothesis["scores"]
            expected = shares["ctc"] + 0.5 * shares["lm"] + 0.1 * shares["length"]
            assert hypothesis["score"] == pytest.approx(expected)
    assert changed
    again = call("rescore", tmp_path / "out" / "predictions.jsonl", *scales, "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert [row["pred_text"] for row in rows_of(tmp_path / "again")] == [
        row["pred_text"] for row in rows_of(tmp_path / "out")
    ]


def test_it_is_what_the_recogniser_does_with_the_same_list(world, tmp_path):
    options = [f"decoding.scorers.lm.path={world / 'other'}", "decoding.scorers.lm.scale=0.5"]
    first = ["decoding.first.beam=16", "decoding.first.nbest=6", "--model", world / "model"]
    data = ["--data", world / "manifest.jsonl", "-o", tmp_path / "one"]
    call("evaluate", "--decoding", "rescoring", *options, *first, *data)
    result = call("rescore", world / "report" / "predictions.jsonl", *options, "-o", tmp_path / "two")
    assert result.exit_code == 0, result.output
    for one, two in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        assert [h["text"] for h in one["nbest"]] == [h["text"] for h in two["nbest"]]
        assert [h["score"] for h in one["nbest"]] == pytest.approx([h["score"] for h in two["nbest"]], rel=1e-4)


def test_scales_of_zero_change_nothing(world):
    sets = read_predictions(world / "report" / "predictions.jsonl")
    options = RescoringSearch(scorers={"ctc": ScorerOptions(0.0), "lm": ScorerOptions(0.0, str(world / "lm"))})
    done = rescore(sets, options, tiny_units())
    for name, rows in sets.items():
        for old, new in zip(rows, done[name], strict=True):
            assert (new.pred_text, new.error) == (old.pred_text, old.error)
            assert [h.labels for h in new.nbest] == [h.labels for h in old.nbest]


def test_nothing_to_rescore(world):
    sets = read_predictions(world / "report" / "predictions.jsonl")
    failed = {name: rows[3:] for name, rows in sets.items()}
    options = RescoringSearch(scorers={"lm": ScorerOptions(0.5, str(world / "lm"))})
    done = rescore(failed, options)
    assert done == failed


def test_a_share_that_is_not_there(world):
    sets = read_predictions(world / "report" / "predictions.jsonl")
    with pytest.raises(ConfigError, match=r"scorers.speech_llm: no such scorer \(there are ctc, length"):
        rescore(sets, RescoringSearch(scorers={"speech_llm": ScorerOptions(0.5)}))


GOOD = {
    "audio_filepath": "a.wav",
    "duration": 1.0,
    "text": "a",
    "pred_text": "a",
    "time": 0.1,
    "id": "a",
    "set": "s",
    "nbest": [{"text": "a", "labels": [1], "score": -1.0, "scores": {"ctc": -1.0}}],
}


def test_priors_join(world, tmp_path):
    sets, units, file = (
        read_predictions(world / "report" / "predictions.jsonl"),
        tiny_units(),
        tmp_path / "p.safetensors",
    )
    values = torch.linspace(-3, -1, units.size)
    save_prior(file, values, vocabulary=vocabulary_fingerprint(units))
    options = RescoringSearch(scorers={"prior": ScorerOptions(-0.5, str(file))})
    (rows,) = rescore(sets, options, units).values()
    for hypothesis in rows[0].nbest:
        shares = hypothesis.scores
        assert shares["prior"] == pytest.approx(float(values[list(hypothesis.labels)].sum()), abs=1e-4)
        assert hypothesis.score == pytest.approx(shares["ctc"] - 0.5 * shares["prior"])
    with pytest.raises(ConfigError, match="--model"):
        rescore(sets, options)


def test_infinite_scores_come_back(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps(GOOD | {"nbest": [{"text": "", "labels": [], "score": None, "scores": {"ctc": None}}]}))
    (row,) = read_predictions(file)["s"]
    assert row.nbest[0].score == row.nbest[0].scores["ctc"] == float("-inf")


def test_lists_of_two_searches_become_one():
    def row(*nbest, text="a", utt_id="u"):
        hypotheses = tuple(Hypothesis((n,), str(n), 0.0, scores=shares) for n, shares in nbest)
        return Prediction(Utterance(Path("a.wav"), 1.0, text, utt_id=utt_id), "p", 0.1, nbest=hypotheses)

    one = row((1, {"ctc": -1.0, "lm": -5.0}), (2, {"ctc": -3.0}))
    other = row((3, {"ctc": -1.5}), (2, {"ctc": -2.0, "lm": -4.0}), (1, {"ctc": -9.0}))
    (joined,) = merged_lists([{"s": [one]}, {"s": [other]}])["s"]
    assert [(h.text, dict(h.scores)) for h in joined.nbest] == [
        ("1", {"ctc": -1.0, "lm": -5.0}),
        ("2", {"ctc": -2.0, "lm": -4.0}),
        ("3", {"ctc": -1.5}),
    ]
    twice = {"s": [one, other], "t": [row((4, {"ctc": 0.0}))]}
    assert merged_lists([twice]) == twice  # the same name twice is two recordings
    assert merged_lists([{"s": [one]}, twice])["s"][1] == other
    silent = row((0, {}))
    assert merged_lists([{"s": [silent]}, {"s": [silent]}])["s"] == [silent]
    assert merged_lists([{"s": [silent]}, {"s": [one]}])["s"][0].nbest == one.nbest
    with pytest.raises(DataError, match="u: two references; name evaluations of the same manifest"):
        merged_lists([{"s": [one]}, {"s": [row(text="b")]}])


def test_scores_of_old_files_are_called_shares(tmp_path):
    file, (candidate,) = tmp_path / "p.jsonl", GOOD["nbest"]
    old = {"shares" if key == "scores" else key: value for key, value in candidate.items()}
    file.write_text(json.dumps(GOOD | {"nbest": [old]}))
    ((row,),) = read_predictions(file).values()
    assert row.nbest[0].scores == {"ctc": -1.0}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "nbest"}), "nbest: required key is missing"),
        (json.dumps(GOOD | {"nbest": []}), "it has no hypothesis"),
        (json.dumps(GOOD | {"nbest": "a"}), "nbest"),
        (json.dumps(GOOD | {"nbest": [{"text": "a"}]}), "nbest.0.labels"),
        (json.dumps(GOOD | {"nbest": [{**GOOD["nbest"][0], "labels": ["x"]}]}), "nbest.0.labels.0"),
        (json.dumps(GOOD | {"nbest": [{**GOOD["nbest"][0], "scores": {"ctc": "x"}}]}), "nbest.0.scores.ctc"),
        (json.dumps(GOOD | {"duration": float("nan")}), "duration"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    file = tmp_path / "p.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_predictions(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        read_predictions(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a UTF-8"):
        read_predictions(tmp_path / "binary")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["p.jsonl", "stray", "-o", "out"], "not an override"),
        (["p.jsonl"], "no folder given"),
        (["p.jsonl", "--decoding", "greedy", "-o", "out"], "'greedy' rescores nothing"),
        (["p.jsonl", "-o", "out"], "cannot be read"),
    ],
)
def test_wrong_calls(arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("rescore", *arguments)
    assert result.exit_code == WRONG_CALL
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
