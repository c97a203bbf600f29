import json

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

from kikitori import loading, recognizer
from kikitori.cli import app
from kikitori.cli.common import SOME_FAILED, WRONG_CALL
from kikitori.data.manifest import read_manifest, write_manifest
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import LOCK
from kikitori.scoring.predictions import read_predictions
from kikitori.search.options import GreedySearch
from kikitori.workflows.evaluate import Searching, evaluate
from kikitori.workflows.machine.conditions import versions
from tests.tiny import save_tiny, tiny_speech_llm, tiny_waveform

REPORT_KEYS = {
    *("wer", "cer", "substitutions", "deletions", "insertions", "reference_words", "utterances", "audio_seconds"),
    *("compute_seconds", "rtfx", "normalizer", "decoding", "model", "versions", "llm_passes", "replaced"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    save_tiny(directory)
    return directory


@pytest.fixture
def data(tmp_path):
    rows = []
    for index, seconds in enumerate([0.9, 0.4, 1.3, 0.6]):
        sf.write(tmp_path / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        split = "dev" if index == 0 else "test"
        row = {"audio_filepath": f"{index}.wav", "duration": seconds, "text": f"The quick fox {index}"}
        rows.append({**row, "language": "en", "split": split, "speaker": "s", "room": index})
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "manifest.jsonl"


def call(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *[str(argument) for argument in arguments]])


def read(folder):
    report = json.loads((folder / "report.json").read_text())
    return report, [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_writes_reports_and_prints_a_table(model, data, tmp_path):
    out = tmp_path / "new" / "out"
    result = call("--model", model, "--data", data, "-o", out, "--batch-size", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    names = {path.name for path in out.iterdir() if path.name != LOCK}
    assert names == {"report.json", "report.html", "predictions.jsonl"}
    report, rows = read(out)
    assert report.keys() >= REPORT_KEYS | {"sets"}
    assert report["sets"][str(data)].keys() >= REPORT_KEYS
    assert (report["utterances"], report["decoding"], report["normalizer"]) == (4, "greedy", "whisper_en")
    assert report["model"] == model.name
    assert report["audio_seconds"] == pytest.approx(3.2)
    assert report["rtfx"] == pytest.approx(report["audio_seconds"] / report["compute_seconds"])
    assert report["llm_passes"] > 0
    # 20 ms frames, three of them stacked
    assert report["positions_per_second"] == pytest.approx(sum(row["speech_positions"] for row in rows) / 3.2)
    assert 16 < report["positions_per_second"] < 17
    errors = report["substitutions"] + report["deletions"] + report["insertions"]
    assert report["wer"] == pytest.approx(errors / report["reference_words"])
    header, *lines = result.stdout.splitlines()
    assert header.split()[:4] == ["set", "utterances", "WER", "CER"]
    assert [line.split()[0] for line in lines] == [str(data), "total"]
    assert f"{report['wer']:.4f}" in lines[-1]
    loaded = loading.load(model, guards=recognizer.PLAIN)
    for index, row in enumerate(rows):
        assert list(row)[:5] == ["audio_filepath", "duration", "text", "pred_text", "time"]
        assert row["pred_text"] == loaded.transcribe(data.with_name(f"{index}.wav")).text
        assert (row["text"], row["room"], row["speaker"]) == (f"The quick fox {index}", index, "s")
        assert row["time"] > 0


def test_several_sets_and_a_split(model, data, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().splitlines()[3])
    result = call("--model", model, "--data", data, "--data", other, "--split", "test", "-o", tmp_path / "out")
    assert result.exit_code == 0
    report, rows = read(tmp_path / "out")
    assert {name: part["utterances"] for name, part in report["sets"].items()} == {str(data): 3, str(other): 1}
    assert report["utterances"] == len(rows) == 4
    for key in ("substitutions", "reference_words", "llm_passes", "audio_seconds"):
        assert report[key] == pytest.approx(sum(part[key] for part in report["sets"].values()))


def test_search_and_overrides(model, data, tmp_path):
    ctc = call("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "ctc")
    short = call("--model", model, "--data", data, "decoding.max_labels=2", "-o", tmp_path / "short")
    assert ctc.exit_code == short.exit_code == 0
    report, _ = read(tmp_path / "ctc")
    assert (report["decoding"], report["llm_passes"]) == ("ctc_greedy", 0)
    assert report["positions_per_second"] is None
    _, rows = read(tmp_path / "short")
    assert all(len(row["pred_text"]) <= 2 for row in rows)
    assert any("length_limit" in row["flags"] for row in rows)


def test_hypotheses_and_their_shares_stand_in_the_rows(model, data, tmp_path):
    call("--model", model, "--data", data, "--decoding", "ctc_beam", "decoding.nbest=3", "-o", tmp_path / "beam")
    call("--model", model, "--data", data, "--decoding", "greedy", "-o", tmp_path / "greedy")
    for name, scorer, most in (("beam", "ctc", 3), ("greedy", "speech_llm", 1)):
        report, rows = read(tmp_path / name)
        assert report["decoding"] in ("ctc_beam", "greedy")
        for row in rows:
            assert 1 <= len(row["nbest"]) <= most
            assert row["nbest"][0]["text"] == row["pred_text"]
            for hypothesis in row["nbest"]:
                assert set(hypothesis) == {"text", "labels", "score", "scores"}
                assert hypothesis["scores"] == {scorer: hypothesis["score"]}


def test_a_failed_row_is_an_empty_prediction_and_is_named(model, data, tmp_path):
    data.with_name("1.wav").unlink()
    sf.write(data.with_name("2.wav"), np.full(8000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    result = call("--model", model, "--data", data, "-o", tmp_path / "out")
    assert result.exit_code == SOME_FAILED
    first, second = result.stderr.splitlines()
    assert "1.wav" in first
    assert "2.wav" in second
    report, rows = read(tmp_path / "out")
    assert [row["pred_text"] == "" for row in rows[1:3]] == [True, True]
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert (report["utterances"], report["failed"]) == (4, 2)
    assert report["reference_words"] == 16
    assert report["deletions"] >= 8
    assert "total" in result.stdout


def test_a_row_too_long_for_the_llm_is_an_empty_prediction_and_is_named(data, tmp_path):
    model = tiny_speech_llm()
    model.config.llm_config.max_position_embeddings = 52
    save_tiny(tmp_path / "model", model)
    result = call("--model", tmp_path / "model", "--data", data, "-o", tmp_path / "out")
    assert result.exit_code == SOME_FAILED
    (line,) = result.stderr.splitlines()
    assert "2.wav: 1.3 s of speech take 23 LLM positions" in line
    report, rows = read(tmp_path / "out")
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert (rows[2]["pred_text"], rows[2]["speech_positions"]) == ("", None)
    assert 15 < report["positions_per_second"] < 17  # of the other rows


def test_bad_manifests(model, data, tmp_path):
    with data.open("a") as out:
        out.write('{"audio_filepath": 3}\n')
    result = call("--model", model, "--data", data, "-o", tmp_path / "out")
    assert result.exit_code == WRONG_CALL
    assert result.stderr.startswith(f"kikitori: {data}:5: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out"], "--data"),
        (["--data", "manifest.jsonl"], "-o"),
        (["--data", "missing.jsonl", "-o", "out"], "missing.jsonl: no such manifest"),
        (["--data", ".", "-o", "out"], "is no manifest: it is a folder"),
        (["--data", "manifest.jsonl", "--split", "train", "-o", "out"], "no usable row of split 'train'"),
        (["--data", "manifest.jsonl", "-o", "out", "--decoding", "viterbi"], "viterbi"),
        (["--data", "manifest.jsonl", "-o", "out", "--model", "./missing"], "./missing: no such model folder"),
        (["--data", "manifest.jsonl", "-o", "out", "--corrupt", "noise"], "noise needs a level"),
        (["--data", "manifest.jsonl", "-o", "out", "extra.jsonl"], "extra.jsonl: not an override"),
        (["--data", "manifest.jsonl", "-o", "out", "run.epochs=2"], "run.epochs=2: no such option"),
    ],
)
def test_wrong_calls(arguments, message, data, monkeypatch):
    monkeypatch.chdir(data.parent)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (data.parent / "out").exists()


def test_a_form_that_leaves_nothing_of_the_references_is_refused(data, tmp_path):
    rows = [json.loads(line) | {"text": "The quick fox"} for line in data.read_text().splitlines()]
    write_manifest(data, rows)
    result = call("--data", data, "-o", tmp_path / "out", "--normalizer", "kana_ja")
    assert result.exit_code == WRONG_CALL
    assert (
        result.stderr
        == f"kikitori: --normalizer: 'kana_ja' leaves nothing of the texts of {data}; choose another form\n"
    )


def test_the_warm_up_is_no_larger_than_the_largest_set(model, data, tmp_path):
    result = call("--model", model, "--data", data, "--split", "dev", "-o", tmp_path / "out", "--batch-size", 10**12)
    assert result.exit_code == 0, result.output


def test_batches_do_not_change_texts_or_order(model, data):
    greedy = Searching(loading.load(model), GreedySearch())
    utterances = read_manifest(data).utterances
    done: list[int] = []
    one = evaluate(greedy, {"set": utterances}, batch_size=1, progress=done.append)["set"]
    many = evaluate(greedy, {"set": utterances}, batch_size=4)["set"]
    assert [p.utterance for p in one] == [p.utterance for p in many] == list(utterances)
    assert [p.pred_text for p in one] == [p.pred_text for p in many]
    assert len({p.pred_text for p in one}) > 1
    assert done == [1, 1, 1, 1]


def test_rows_are_cuts_of_their_file(model, data):
    whole = tiny_waveform(3.0, 7)
    sf.write(data.with_name("long.wav"), whole, SAMPLE_RATE, subtype="FLOAT")
    cut = data.with_name("cuts.jsonl")
    write_manifest(cut, [{"audio_filepath": "long.wav", "offset": 1.0, "duration": 0.5, "text": "a"}])
    loaded = loading.load(model, guards=recognizer.PLAIN)
    (prediction,) = evaluate(Searching(loaded, GreedySearch()), {"set": read_manifest(cut).utterances})["set"]
    assert prediction.pred_text == loaded.transcribe(whole[16_000:24_000]).text


def test_versions():
    assert versions().keys() >= {"kikitori", "python", "torch", "transformers"}
    assert "missing" not in versions().values()


def test_runaways_are_kept_and_counted_and_replaced_on_demand(model, data, tmp_path):
    assert call("--model", model, "--data", data, "-o", tmp_path / "kept").exit_code == 0
    assert call("--model", model, "--data", data, "-o", tmp_path / "ctc", "--on-runaway", "ctc").exit_code == 0
    assert call("--model", model, "--data", data, "-o", tmp_path / "heard", "--decoding", "ctc_greedy").exit_code == 0
    (kept, kept_rows), (ctc, ctc_rows), (_, heard) = (read(tmp_path / name) for name in ("kept", "ctc", "heard"))
    replaced = [index for index, row in enumerate(ctc_rows) if "replaced" in row["flags"]]
    assert (kept["replaced"], ctc["replaced"], ctc["flags"]["replaced"]) == (0, len(replaced), len(replaced))
    assert replaced
    assert {**kept["flags"], "replaced": len(replaced)} == ctc["flags"]
    for index, (row, plain) in enumerate(zip(ctc_rows, kept_rows, strict=True)):
        assert row["pred_text"] == (heard[index] if index in replaced else plain)["pred_text"]
        assert row["ctc_agreement"] == plain["ctc_agreement"]
        assert plain["reasons"].items() <= row["reasons"].items()
    assert "ctc_disagrees (agreement 0." in (tmp_path / "kept" / "report.html").read_text()
    again = read_predictions(tmp_path / "ctc" / "predictions.jsonl")
    assert [row.ctc_agreement for row in next(iter(again.values()))] == [row["ctc_agreement"] for row in ctc_rows]


def test_corrupted_recordings_have_reports_of_their_own_and_a_table(model, data, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "out"
    call("--model", model, "--data", data, "-o", plain)
    result = call("--model", model, "--data", data, "-o", out, "--corrupt", "noise:0", "--corrupt", "gsm", "--seed", 3)
    assert result.exit_code == 0, result.output
    report, rows = read(out)
    clean = [row["pred_text"] for row in read(plain)[1]]
    assert [row["pred_text"] for row in rows] == clean
    assert report["conditions"].items() >= {"batch_size": 8, "dtype": "float32", "corruption": None}.items()
    assert report["conditions"]["device"].startswith("cpu")
    of_noise, noisy = read(out / "corrupted" / "noise-0")
    assert of_noise["conditions"].items() >= {"corruption": "noise:0", "seed": 3}.items()
    assert [row["id"] for row in noisy] == [row["id"] for row in rows]
    assert [row["pred_text"] for row in noisy] != clean
    assert "corruption noise:0, seed 3" in (out / "corrupted" / "noise-0" / "report.html").read_text()
    assert [line.split()[0] for line in result.stdout.splitlines()[-4:]] == ["corruption", "as", "noise:0", "gsm"]
    assert f"| gsm | {read(out / 'corrupted' / 'gsm')[0]['wer']:.4f} |" in (out / "robustness.md").read_text()
    table = json.loads((out / "robustness.json").read_text())
    assert [*table] == ["as recorded", "noise:0", "gsm"]
    assert table["noise:0"]["wer"] == of_noise["wer"]
    # Of several systems on the same samples one table; what not all have is named.
    call("--model", model, "--data", data, "-o", plain, "--corrupt", "noise:0", "--seed", 3, "--decoding", "ctc_greedy")
    compared = CliRunner().invoke(app, ["compare", str(out), str(plain), "-o", str(tmp_path / "compared")])
    assert compared.exit_code == 0, compared.output
    assert "| noise:0 (seed 3) | " in compared.stdout
    assert "left out, since not all systems have it: gsm (seed 3)" in compared.stderr
    values = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert values["corrupted"]["noise:0 (seed 3)"][0]["words"]["rate"] == of_noise["wer"]
    assert values["systems"][0]["conditions"] == report["conditions"]
    (out / "corrupted" / "gsm" / "report.json").write_text("{}")
    refused = CliRunner().invoke(app, ["compare", str(out), str(plain)])
    assert "gsm/report.json: does not say which corruption" in refused.stderr


def test_fillers_are_left_out_on_demand(model, data, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write_manifest(data, [row | {"text": f"Uh, {row['text']}"} for row in rows])
    call("--model", model, "--data", data, "-o", tmp_path / "out", "--normalizer", "none", "--fillers", "remove")
    report, written = read(tmp_path / "out")
    assert report["fillers"] == {"reference": 4, "predicted": 0, "removed": True, "version": 1}
    assert report["reference_words"] == 16
    assert written[0]["text"] == "Uh, The quick fox 0"
    assert "Uh" not in (tmp_path / "out" / "report.html").read_text()
    write_manifest(data, [row | {"language": "de"} for row in rows])
    refused = call("--model", model, "--data", data, "-o", tmp_path / "de", "--fillers", "remove")
    assert "--fillers remove: fillers are known of en and ja alone" in refused.stderr
