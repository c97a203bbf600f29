"""Scales from n-best lists on file and from speech, and what is written for them."""

import json
import sys
from dataclasses import replace

import pytest
import soundfile as sf
from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.cli.common import SOME_FAILED, WRONG_CALL
from kikitori.data.manifest import write_manifest
from kikitori.errors import ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.scorers.options import ScorerOptions
from kikitori.scorers.prior import count_prior, save_prior
from kikitori.scoring.predictions import read_predictions
from kikitori.scoring.tuning.grids import Grid
from kikitori.search.options import LexiconSearch, RescoringSearch, ShallowFusionSearch, load_decoding
from kikitori.workflows.rescore import stored_scores
from kikitori.workflows.tuning.lists import with_missing_scores
from kikitori.workflows.tuning.tune import chosen_axes, chosen_grids
from tests.tiny import TEXTS, save_tiny, save_tiny_llm, tiny_bpe, tiny_units, tiny_waveform

SEARCH = ["decoding.first.beam=8", "decoding.first.nbest=8"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A recogniser with lm/ and a prior, a further LM, and 8-best lists of CTC in `ctc`, of one-pass search in `fused`.

    What the recogniser says at random is never right, so references are hypotheses somewhere in the lists.
    """
    folder = tmp_path_factory.mktemp("world")
    units = tiny_units()
    save_tiny(folder / "model")
    save_tiny_llm(folder / "model" / "lm", "llama")
    save_prior(folder / "model" / "prior.safetensors", count_prior([units.encode(t) for t in TEXTS], units.size))
    save_tiny_llm(folder / "other", "qwen2", units=tiny_bpe())
    rows = []
    for index, seconds in enumerate([0.9, 0.4, 1.3, 0.7]):
        sf.write(folder / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        rows.append({"audio_filepath": f"{index}.wav", "duration": seconds, "text": "x", "language": "en"})
    write_manifest(folder / "manifest.jsonl", rows)
    evaluate(folder, "first", "--decoding", "ctc_beam", "decoding.nbest=8")
    for row, found in zip(rows, rows_of(folder / "first"), strict=True):
        row["text"] = found["nbest"][5]["text"]
    write_manifest(folder / "manifest.jsonl", rows)
    evaluate(folder, "ctc", "--decoding", "ctc_beam", "decoding.nbest=8")
    evaluate(folder, "fused", "--decoding", "shallow_fusion", "decoding.nbest=8", "decoding.scorers.prior.scale=-0.1")
    return folder


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluate(folder, name, *arguments):
    data = ["--data", folder / "manifest.jsonl", "-o", folder / name, "--model", folder / "model"]
    result = call("evaluate", *data, *arguments)
    assert result.exit_code == 0, result.output
    return result


def rows_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def wer_of(folder):
    return json.loads((folder / "report.json").read_text())["wer"]


def table_of(folder):
    return json.loads((folder / "tuning.json").read_text())


def test_from_a_file_to_a_search_that_does_as_well(world, tmp_path):
    lists, other = world / "ctc" / "predictions.jsonl", f"decoding.scorers.other.path={world / 'other'}"
    prior = f"decoding.scorers.prior.path={world / 'model' / 'prior.safetensors'}"
    given = ["--decoding", "rescoring", other, "decoding.scorers.other.scale=0", prior, *SEARCH]
    grids = ["--scale", "prior=-1:0:0.25", "--scale", "length=-2:2:0.5"]
    result = call("tune", lists, *given, *grids, "--model", world / "model", "-o", tmp_path / "tuned")
    assert result.exit_code == 0, result.output
    table = table_of(tmp_path / "tuned")
    assert table["grid"]["columns"] == ["ctc", "other", "prior", "length", "errors"]
    assert len(table["grid"]["points"]) == 11 * 5 * 9
    assert table["oracle"]["wer"] <= table["tuned"]["wer"] <= table["ctc"]["wer"] == wer_of(world / "ctc")
    assert table["tuned"]["wer"] < table["ctc"]["wer"]
    assert f"{table['tuned']['errors']}  {table['tuned']['wer']:.4f}" in result.stdout
    assert (tmp_path / "tuned" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    file = tmp_path / "tuned" / "decoding.yaml"
    again = call("rescore", lists, "--decoding", file, "--model", world / "model", "-o", tmp_path / "rescored")
    assert again.exit_code == 0, again.output
    assert wer_of(tmp_path / "rescored") == table["tuned"]["wer"]
    # The lists have all shares now, and need no model to be rescored.
    stored = call("rescore", tmp_path / "tuned" / "predictions.jsonl", "--decoding", file, "-o", tmp_path / "stored")
    assert stored.exit_code == 0, stored.output
    assert wer_of(tmp_path / "stored") == table["tuned"]["wer"]
    evaluate(world, tmp_path / "evaluated", "--decoding", file)
    assert wer_of(tmp_path / "evaluated") == pytest.approx(table["tuned"]["wer"])
    transcribed = call("transcribe", world / "0.wav", "--decoding", file, "--model", world / "model")
    assert transcribed.exit_code == 0, transcribed.output


def test_lists_of_one_pass_search_need_no_model(world, tmp_path):
    result = call("tune", world / "fused" / "predictions.jsonl", "--decoding", "shallow_fusion", "-o", tmp_path / "t")
    assert result.exit_code == 0, result.output
    options = load_decoding(tmp_path / "t" / "decoding.yaml")
    table = table_of(tmp_path / "t")
    scales = table["tuned"]["scales"]
    assert isinstance(options, ShallowFusionSearch)
    assert {"ctc": 1.0, **{name: options.scale(name) for name in ("lm", "prior", "length")}} == scales
    assert table["first"]["wer"] == wer_of(world / "fused")
    assert not (tmp_path / "t" / "predictions.jsonl").exists()
    evaluate(world, tmp_path / "evaluated", "--decoding", tmp_path / "t" / "decoding.yaml")


@pytest.mark.parametrize("search", ["shallow_fusion", pytest.param("delayed_fusion", marks=pytest.mark.slow)])
def test_from_speech_in_one_command(world, tmp_path, search):
    data = ["--data", world / "manifest.jsonl", "--model", world / "model", "--decoding", search]
    result = call("tune", *data, "--axes", "length,lm", "-o", tmp_path / "t")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "t")
    assert all({*h["scores"]} == {"ctc", "lm", "prior", "length"} for row in rows for h in row["nbest"])
    for row in rows:
        scores = [h["scores"]["ctc"] for h in row["nbest"]]
        # Of the same labels the larger share counts, and either search may have pruned.
        assert scores[:64] == pytest.approx(sorted(scores[:64], reverse=True), abs=0.5)
        assert 64 <= len(scores) <= 64 + 16  # the search's own hypotheses come behind
        assert len({tuple(h["labels"]) for h in row["nbest"]}) == len(scores)
    assert any(len(row["nbest"]) > 64 for row in rows)
    again = call("tune", tmp_path / "t" / "predictions.jsonl", "--decoding", search, "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    first, second = table_of(tmp_path / "t"), table_of(tmp_path / "again")
    assert first["source"] == str(world / "manifest.jsonl")
    assert {**first, "source": ""} == {**second, "source": ""}
    folder = tmp_path / "tuned"
    folder.mkdir()
    evaluate(world, folder, "--decoding", tmp_path / "t" / "decoding.yaml")


def test_shares_of_lists_are_those_of_the_search(world):
    options = load_decoding("shallow_fusion")
    sets = read_predictions(world / "fused" / "predictions.jsonl")
    ((name, rows),) = sets.items()
    bare = {
        name: [
            replace(row, nbest=tuple(replace(h, scores={"ctc": h.scores["ctc"]}) for h in row.nbest)) for row in rows
        ]
    }
    made = with_missing_scores(bare, options, ["ctc", "lm", "prior", "length"], tiny_units(), "cpu", world / "model")
    for row, old in zip(made[name], rows, strict=True):
        assert (row.pred_text, [h.score for h in row.nbest]) == (old.pred_text, [h.score for h in old.nbest])
        for hypothesis, before in zip(row.nbest, old.nbest, strict=True):
            shares = {**before.scores}
            del shares["length"]
            assert dict(hypothesis.scores) == pytest.approx(shares, abs=1e-3)
    assert with_missing_scores(sets, options, ["ctc", "lm", "prior"]) is sets


def test_lists_of_several_searches_are_joined(world, tmp_path):
    lists = [world / name / "predictions.jsonl" for name in ("fused", "ctc")]
    held = ["--scale", "prior=0", "--scale", "length=0"]
    joined, alone = tmp_path / "joined", tmp_path / "alone"
    result = call("tune", *lists, "--decoding", "shallow_fusion", *held, "--model", world / "model", "-o", joined)
    assert result.exit_code == 0, result.output
    assert call("tune", lists[0], "--decoding", "shallow_fusion", *held, "-o", alone).exit_code == 0
    for row, *others in zip(rows_of(joined), *map(rows_of, (world / "fused", world / "ctc")), strict=True):
        assert {h["text"] for h in row["nbest"]} == {h["text"] for other in others for h in other["nbest"]}
        assert row["pred_text"] == others[0]["pred_text"]
    assert table_of(joined)["oracle"]["wer"] <= table_of(alone)["oracle"]["wer"]


def test_a_recording_that_is_lost_is_named_and_counts(world, tmp_path):
    rows = [json.loads(line) for line in (world / "manifest.jsonl").read_text().splitlines()]
    lost = {**rows[0], "audio_filepath": str(world / "lost.wav"), "text": "a b"}
    manifest = [{**row, "audio_filepath": str(world / row["audio_filepath"])} for row in rows[:2]]
    write_manifest(tmp_path / "manifest.jsonl", [lost, *manifest])
    options = ["--decoding", "rescoring", *SEARCH, "--scale", "length=-1:1:0.5", "-o", tmp_path / "t"]
    result = call("tune", "--data", tmp_path / "manifest.jsonl", "--model", world / "model", *options)
    assert result.exit_code == SOME_FAILED, result.output
    assert "lost.wav" in result.stderr
    table = table_of(tmp_path / "t")
    assert (table["utterances"], table["ctc"]["wer"]) == (3, wer_of(tmp_path / "t"))
    assert load_decoding(tmp_path / "t" / "decoding.yaml").lms == {}


def test_the_speech_llm(world, tmp_path):
    data = ["--data", world / "manifest.jsonl", "--model", world / "model", "-o", tmp_path / "t"]
    options = ["--decoding", "rescoring", "decoding.scorers.speech_llm.scale=0", *SEARCH]
    result = call("tune", *data, *options, "--scale", "speech_llm=0:0.5:0.1")
    assert result.exit_code == 0, result.output
    assert table_of(tmp_path / "t")["grid"]["columns"] == ["ctc", "speech_llm", "errors"]
    stored = call("tune", tmp_path / "t" / "predictions.jsonl", "--decoding", "rescoring", "-o", tmp_path / "s")
    assert stored.exit_code == 0, stored.output


def test_the_search_of_the_model_folder(world, tmp_path):
    (world / "model" / "decoding.yaml").write_text("search: shallow_fusion\nbeam: 5\n")
    try:
        lists, output = world / "fused" / "predictions.jsonl", tmp_path / "t"
        result = call(
            "tune", lists, "--model", world / "model", "--scale", "length=0", "--scale", "lm=0.5", "-o", output
        )
    finally:
        (world / "model" / "decoding.yaml").unlink()
    assert result.exit_code == 0, result.output
    options = load_decoding(output / "decoding.yaml")
    assert (options.beam, options.scale("lm"), options.scale("length")) == (5, 0.5, 0.0)
    assert table_of(output)["grid"]["columns"] == ["ctc", "lm", "prior", "errors"]


def test_without_matplotlib_all_but_the_picture(world, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call("tune", world / "fused" / "predictions.jsonl", "--decoding", "shallow_fusion", "-o", tmp_path / "t")
    assert result.exit_code == 0, result.output
    assert "no picture without matplotlib" in result.stderr
    assert {file.name for file in (tmp_path / "t").iterdir()} == {"decoding.yaml", "tuning.json"}


def test_axes():
    grids = chosen_grids(ShallowFusionSearch(), {"prior": Grid(-0.5, -0.5)})
    assert [*grids] == ["ctc", "lm", "length", "prior"]
    assert chosen_axes(grids) == ["lm", "length"]
    assert chosen_axes(grids, ["length"]) == ["length"]
    assert chosen_axes(grids, ["length", "lm"]) == ["length", "lm"]
    for axes, problem in ((["prior"], "'prior' is not tuned"), (["lm", "lm"], "two different axes")):
        with pytest.raises(ConfigError, match=problem):
            chosen_axes(grids, axes)


def test_a_prior_is_tuned_where_there_is_one(world):
    assert "prior" not in chosen_grids(ShallowFusionSearch(), {})
    assert "prior" in chosen_grids(ShallowFusionSearch(), {}, folder=world / "model")
    assert "prior" in chosen_grids(ShallowFusionSearch(), {}, ["lm", "prior"])
    for options in (
        ShallowFusionSearch(scorers={"prior": ScorerOptions(path="p")}),
        ShallowFusionSearch(scorers={"prior": ScorerOptions(scale=-0.1)}),
    ):
        assert "prior" in chosen_grids(options, {})
        assert "prior" not in chosen_grids(options, {"prior": Grid(0.0, 0.0)})


LEFT_OUT = {"lm": Grid(0.0, 0.0), "prior": Grid(0.0, 0.0)}
RESCORING = RescoringSearch(scorers={"other": ScorerOptions(0.0, "o")})


@pytest.mark.parametrize(
    ("options", "grids", "problem"),
    [
        (LexiconSearch(), {"ngram": Grid(-1.0, 1.0, 0.1)}, r"scale of ngram: in lexicon search .* 0 or above"),
        (ShallowFusionSearch(), {"books": Grid(0.0, 1.0, 0.1)}, r"scale of books: no such scorer"),
        (RescoringSearch(), {}, r"scale of lm: no such scorer .* decoding.scorers.lm.path, or .* --scale lm=0"),
        (
            RescoringSearch(),
            {"lm": Grid(0.0, 0.0), "prior": Grid(0.0, 0.0), "length": Grid(1.0, 1.0)},
            "no scale to tune",
        ),
        (RESCORING, {**LEFT_OUT, "other": Grid(0.0, 1.0, 1e-6)}, "more than 200000"),
        (
            RESCORING,
            {**LEFT_OUT, "speech_llm": Grid(0.0, 1.0, 0.1)},
            r"speech_llm: .* name speech with --data",
        ),
    ],
)
def test_what_cannot_be_tuned(world, options, grids, problem):
    sets = read_predictions(world / "fused" / "predictions.jsonl")
    with pytest.raises(ConfigError, match=problem):
        with_missing_scores(sets, options, chosen_grids(options, grids, stored_scores(sets)))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "what to tune on is not clear"),
        (["a.jsonl", "--data", "m.jsonl"], "what to tune on is not clear"),
        (["a.jsonl", "--split", "dev"], "what to tune on is not clear"),
        (["LISTS"], "no folder given"),
        (["LISTS", "-o", "out", "--decoding", "shallow_fusion", "--axes", "a,b"], "'a' is not tuned"),
        (["none.jsonl", "-o", "out"], "cannot be read"),
        (["LISTS", "-o", "out"], "which search shall be tuned"),
        (["LISTS", "-o", "out", "--decoding", "ctc_beam"], "'ctc_beam' has no scales"),
        (["LISTS", "-o", "out", "--scale", "lm"], "no grid of scales"),
        (["LISTS", "-o", "out", "--decoding", "shallow_fusion"], "decoding.scorers.lm.path: nothing is named"),
        (
            [
                "LISTS",
                "-o",
                "out",
                "--decoding",
                "shallow_fusion",
                "decoding.scorers.lm.path=x",
                "decoding.scorers.prior.path=y",
            ],
            "give --model",
        ),
        (["BROKEN", "-o", "out", "--decoding", "shallow_fusion"], ":2: not JSON"),
        (["GREEDY", "-o", "out", "--decoding", "rescoring"], "a hypothesis has no score 'ctc'"),
        (["SILENT", "-o", "out", "--decoding", "shallow_fusion"], "no utterance has a reference text"),
        (["FAILED", "-o", "out", "--decoding", "shallow_fusion"], "no n-best list with scores"),
    ],
)
def test_wrong_calls(world, arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = rows_of(world / "fused")
    greedy = [{**row, "nbest": [{**row["nbest"][0], "scores": {"speech_llm": -1.0}}]} for row in rows]
    files = {
        "LISTS": rows_of(world / "ctc"),
        "BROKEN": [*rows[:1], "{"],
        "GREEDY": greedy,
        "SILENT": [{**row, "text": None} for row in rows],
        "FAILED": [{**row, "nbest": [], "error": "lost"} for row in rows],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(
            "".join(f"{json.dumps(row) if isinstance(row, dict) else row}\n" for row in content)
        )
    result = call("tune", *arguments)
    assert result.exit_code == WRONG_CALL, result.output
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_impossible_counts_nothing_without_a_scale(world, tmp_path):
    rows = rows_of(world / "fused")
    for row in rows:
        row["nbest"][0]["scores"]["prior"] = None  # -inf in JSON
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = [part for name in ("lm", "length") for part in ("--scale", f"{name}=0")]
    result = call("tune", lists, "--decoding", "shallow_fusion", *held, "-o", tmp_path / "t")
    assert result.exit_code == 0, result.output
    tuned = table_of(tmp_path / "t")
    first = call("rescore", lists, "-o", tmp_path / "r")
    assert first.exit_code == 0, first.output
    assert tuned["ctc"]["wer"] == wer_of(tmp_path / "r")
    assert load(world / "model", decoding=str(tmp_path / "t" / "decoding.yaml")).decoding.scale("lm") == 0.0
