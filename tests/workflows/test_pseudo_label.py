"""`kikitori data pseudo-label` with tiny recognisers, whose texts are nonsense of varied length and confidence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from kikitori import loading
from kikitori.cli.common import SOME_FAILED, WRONG_CALL
from kikitori.data.manifest import is_recognized, read_manifest, write_manifest
from kikitori.errors import DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.scoring.pseudo_labels import PseudoLabelFilter, Recognized
from kikitori.search.confidence import confidence
from kikitori.search.options import BeamSearch, CTCBeamSearch, CTCGreedySearch, GreedySearch, load_decoding
from kikitori.workflows import pseudo_label
from kikitori.workflows.pseudo_label import origin_of, recognize, write_labels
from tests.commands import call, one_line
from tests.tiny import save_tiny, tiny_speech_llm, tiny_waveform

SECONDS = (0.9, 0.4, 1.3, 0.6, 1.1, 0.7)
LOWER = "lower --min-confidence, or see left_out.jsonl"
ALL = PseudoLabelFilter(rate=(0.0, 1000.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny") / "model"
    directory.mkdir()
    save_tiny(directory)
    return directory


@pytest.fixture(scope="module")
def loaded(model):
    return loading.load(model)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "speech"
    (folder / "audio").mkdir(parents=True)
    rows = []
    for index, seconds in enumerate(SECONDS):
        sf.write(folder / "audio" / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        row = {"audio_filepath": f"audio/{index}.wav", "duration": seconds, "text": None, "intent": "orderDrink"}
        rows.append(row | {"language": "en", "split": "train", "speaker": f"s{index % 2}"})
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def rewrite(data, change):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write_manifest(data, [row | change(number, row) for number, row in enumerate(rows)])


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def label(*arguments, **options):
    return call("data", "pseudo-label", *arguments, "--rate", 0, 1000, **options)


def test_a_manifest_to_train_on(model, loaded, data, tmp_path):
    out = tmp_path / "labels" / "first"
    result = label("--model", model, "--data", data, "--decoding", "ctc_beam", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out / 'manifest.jsonl'}\n"
    before, after = read_manifest(data).utterances, read_manifest(out / "manifest.jsonl").utterances
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert new.audio_filepath.samefile(old.audio_filepath)
        assert not Path(rows_of(out / "manifest.jsonl")[0]["audio_filepath"]).is_absolute()
        for name in ("duration", "offset", "utt_id", "language", "split", "speaker"):
            assert getattr(new, name) == getattr(old, name)
        heard = loaded.transcribe(old.audio_filepath, decoding="ctc_beam")
        assert new.text == heard.text
        assert is_recognized(new)
        assert not is_recognized(old)
        sure = new.extra.pop("confidence")
        assert sure == pytest.approx(confidence(heard.nbest[0], CTCBeamSearch()), abs=1e-4)
        assert new.extra == {
            "recognized": True,
            "recognizer": f"{model.parent.name}/model",
            "search": "ctc_beam",
        }
    assert {path.name for path in out.iterdir()} == {
        *("manifest.jsonl", "left_out.jsonl", "summary.json", "recognition.json", ".parts", ".lock")
    }


@pytest.mark.parametrize(
    "search",
    ["ctc_greedy", "greedy", "joint", *(pytest.param(each, marks=pytest.mark.slow) for each in ("ctc_beam", "beam"))],
)
def test_neither_texts_nor_confidences_depend_on_the_batch(search, loaded, data, tmp_path):
    rows, options = read_manifest(data).utterances, load_decoding(search)
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    many = recognize(loaded, rows, options, together, batch_size=len(rows))
    one = recognize(loaded, rows, options, alone, batch_size=1)
    for left, right in zip(many, one, strict=True):
        assert replace(left, confidence=0.0) == replace(right, confidence=0.0)
        assert left.confidence == pytest.approx(right.confidence, abs=2e-4)
    assert len({each.confidence for each in one}) == len(rows)


def test_confidence_is_the_score_per_label(loaded, data, tmp_path):
    rows = read_manifest(data).utterances
    (tmp_path / "out").mkdir()
    found = recognize(loaded, rows, CTCGreedySearch(), tmp_path / "out")
    for row, each in zip(rows, found, strict=True):
        waveform = loaded.read(row.audio_filepath)
        log_probs, lengths = loaded.ctc_log_probs([waveform])
        best, labels = log_probs[0, : lengths[0]].max(dim=1)
        collapsed = torch.unique_consecutive(labels)
        count = int((collapsed != log_probs.shape[2] - 1).sum())
        assert each.confidence == pytest.approx(float(best.sum()) / (count + 1), abs=1e-4)


def test_reasons_are_counted_named_and_kept_apart(model, data, tmp_path):
    out = tmp_path / "out"
    sf.write(data.parent / "audio" / "1.wav", np.zeros(6400), SAMPLE_RATE)  # silence
    sf.write(data.parent / "audio" / "2.wav", tiny_waveform(2.5, 2), SAMPLE_RATE)
    (data.parent / "audio" / "3.wav").unlink()
    rewrite(data, lambda number, _: {"duration": 2.5} if number == 2 else {})  # more than the model has learnt from
    made = ("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", out)
    result = label(*made)
    assert result.exit_code == SOME_FAILED
    first, *lines = result.stderr.splitlines()
    assert "3.wav" in first
    assert lines[:4] == [
        "kikitori: 3 utterances, 0.00 h",
        "kikitori: left out 1: flagged: no_speech (audio/1.wav)",
        "kikitori: left out 1: flagged: longer_than_training (audio/2.wav)",
        "kikitori: left out 1: unreadable (audio/3.wav)",
    ]
    kept = rows_of(out / "manifest.jsonl")
    assert [row["id"] for row in kept] == ["audio/0.wav", "audio/4.wav", "audio/5.wav"]
    reasons = {row["id"]: row["left_out"] for row in rows_of(out / "left_out.jsonl")}
    assert reasons == {
        "audio/1.wav": "flagged: no_speech",
        "audio/2.wav": "flagged: longer_than_training",
        "audio/3.wav": "unreadable",
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["kept"] == {"utterances": 3, "seconds": pytest.approx(2.7), "error_rate": None}
    assert {reason: part["utterances"] for reason, part in summary["left_out"].items()} == dict.fromkeys(
        reasons.values(), 1
    )
    # the least sure of three is left out by its own confidence, the others stay, and nothing is heard again
    ordered = sorted(row["confidence"] for row in kept)
    again = label(*made, "--min-confidence", ordered[1])
    assert "kikitori: left out 1: too little confidence" in again.stderr
    assert [row["confidence"] for row in rows_of(out / "manifest.jsonl")] == [
        row["confidence"] for row in kept if row["confidence"] >= ordered[1]
    ]
    assert json.loads((out / "summary.json").read_text())["min_confidence"] == ordered[1]
    # the table counts what a threshold can keep, whatever this one was
    assert sum(group["utterances"] for group in json.loads((out / "summary.json").read_text())["by_confidence"]) == 3


def test_doubts_of_guards_count(model, data, tmp_path):
    result = label("--model", model, "--data", data, "--decoding", "greedy", "-o", tmp_path / "out")
    assert result.exit_code == WRONG_CALL  # a random LLM writes nothing that its CTC head hears
    reasons = [row["left_out"] for row in rows_of(tmp_path / "out" / "left_out.jsonl")]
    assert len(reasons) == len(SECONDS)
    assert all(reason.startswith("flagged: ") and "ctc_disagrees" in reason for reason in reasons)
    assert f"left out {reasons.count(reasons[0])}: {reasons[0]} (" in result.stderr


def test_references_are_measured_and_never_written(model, loaded, data, tmp_path):
    rows = read_manifest(data).utterances
    texts = [loaded.transcribe(row.audio_filepath, decoding="ctc_greedy").text for row in rows]
    secret = {"text_raw": "SECRET", "reading": "SECRET"}
    rewrite(data, lambda number, _: {**secret, "text": f"{texts[number]} secret" if number < 3 else None})
    out = tmp_path / "out"
    result = label("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", out)
    assert result.exit_code == 0, result.output
    words = sum(len(text.split()) + 1 for text in texts[:3])
    assert result.stderr.startswith(f"kikitori: 6 utterances, 0.00 h, WER {3 / words:.3f}\n")
    assert "WER  of all surer  of the rest" in result.stderr.splitlines()[1]
    groups = json.loads((out / "summary.json").read_text())["by_confidence"]
    assert len(groups) == len(texts)
    assert groups[-1]["error_rate_of_all_surer"] == pytest.approx(3 / words)
    assert groups[-1]["error_rate_of_the_rest"] is None
    assert sum(group["error_rate"] is None for group in groups) == 3
    assert "-" in result.stderr
    for file in out.rglob("*"):
        assert not file.is_file() or "secret" not in file.read_text().lower()


def test_recognised_text_is_no_reference(model, data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    label("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", one)
    second = label("--model", model, "--data", one / "manifest.jsonl", "--decoding", "ctc_beam", "-o", two)
    assert "WER" not in second.stderr
    rows = read_manifest(two / "manifest.jsonl").utterances
    for old, new in zip(read_manifest(data).utterances, rows, strict=True):
        assert new.audio_filepath.samefile(old.audio_filepath)
        assert (new.utt_id, new.extra["search"]) == (old.utt_id, "ctc_beam")


def test_what_was_killed_goes_on(loaded, data, tmp_path, monkeypatch):
    rows, heard = read_manifest(data).utterances, list[str]()
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    plain.mkdir()
    killed.mkdir()
    monkeypatch.setattr(pseudo_label, "PART", 2)
    whole = recognize(loaded, rows, CTCGreedySearch(), plain)
    evaluate_batch = pseudo_label.evaluate_batch

    def listening(searched, batch):
        heard.extend(row.utt_id for row in batch)
        return evaluate_batch(searched, batch)

    def interrupted(searched, batch):
        if len(heard) == 4:
            raise KeyboardInterrupt
        return listening(searched, batch)

    monkeypatch.setattr(pseudo_label, "evaluate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recognize(loaded, rows, CTCGreedySearch(), killed)
    monkeypatch.setattr(pseudo_label, "evaluate_batch", listening)
    done = list[int]()
    assert recognize(loaded, rows, CTCGreedySearch(), killed, batch_size=1, progress=done.append) == whole
    assert sorted(heard) == [row.utt_id for row in rows]  # each was heard once
    assert done == [2, 2, 2]
    heard.clear()
    assert recognize(loaded, rows, CTCGreedySearch(), killed) == whole
    assert heard == []


def test_what_could_not_be_read_is_tried_again(model, data, tmp_path):
    made = ("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "out")
    gone = data.parent / "audio" / "3.wav"
    gone.rename(gone.with_suffix(".gone"))
    assert label(*made).exit_code == SOME_FAILED
    assert len(rows_of(tmp_path / "out" / "manifest.jsonl")) == len(SECONDS) - 1
    gone.with_suffix(".gone").rename(gone)
    assert label(*made).exit_code == 0
    rows = rows_of(tmp_path / "out" / "manifest.jsonl")
    assert [row["id"] for row in rows] == [f"audio/{number}.wav" for number in range(len(SECONDS))]
    assert rows_of(tmp_path / "out" / "left_out.jsonl") == []


def test_a_folder_belongs_to_one_model_search_and_speech(model, data, tmp_path):
    other = tmp_path / "other"
    save_tiny(other, tiny_speech_llm(seed=1))
    made = ("--model", model, "--data", data, "-o", tmp_path / "out")
    assert label(*made, "--decoding", "ctc_greedy").exit_code == 0
    before = (tmp_path / "out" / "manifest.jsonl").read_text()
    changed = [
        label(*made, "--decoding", "ctc_beam"),
        label("--model", model, "--data", data, "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "out"),
        label("--model", other, "--decoding", "ctc_greedy", "--data", data, "-o", tmp_path / "out"),
    ]
    for result in changed:
        assert "recognition.json: is of another model, search or speech; choose another folder" in one_line(result)
    assert (tmp_path / "out" / "manifest.jsonl").read_text() == before
    assert "holds a manifest that is not of this command" in one_line(
        label("--model", model, "--data", data, "-o", data.parent)
    )
    assert all(row["text"] is None for row in rows_of(data))
    rewrite(data, lambda number, _: {"bytes": [number, 99]})  # elsewhere in the same files
    assert "another model, search or speech" in one_line(label(*made, "--decoding", "ctc_greedy"))


def test_language_models_beside_the_weights_are_part_of_the_model(model, data, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    made = ("--model", tmp_path / "model", "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "out")
    assert label(*made).exit_code == 0
    (tmp_path / "model" / "README.md").write_text("a card")
    assert label(*made).exit_code == 0
    for name in ("words.ngram", "draft.yaml"):
        (tmp_path / "model" / name).write_bytes(b"search: ctc_greedy")
        assert "another model" in one_line(label(*made))
        (tmp_path / "model" / name).unlink()
        assert label(*made).exit_code == 0


def test_a_damaged_part_is_named(model, data, tmp_path):
    made = ("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "out")
    label(*made)
    (part,) = (tmp_path / "out" / ".parts").iterdir()
    for content in ("{", "[]", '{"0": {"text": "a"}}'):
        part.write_text(content)
        assert f"{part}: is damaged" in one_line(label(*made))
    part.unlink()
    assert label(*made).exit_code == 0


def test_nothing_trusted_leaves_no_manifest(model, data, tmp_path):
    made = ("--model", model, "--data", data, "--decoding", "ctc_greedy", "-o", tmp_path / "out")
    assert label(*made).exit_code == 0
    result = label(*made, "--min-confidence", 99)
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    first, second, *table, last = result.stderr.splitlines()
    assert first == "kikitori: 0 utterances, 0.00 h"
    assert second.startswith("kikitori: left out 6: too little confidence (audio/0.wav, ")
    assert len(table) == 1 + len(SECONDS)
    assert last == f"kikitori: {tmp_path / 'out'}: no text is trusted, so there is no manifest; {LOWER}"
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert len(rows_of(tmp_path / "out" / "left_out.jsonl")) == len(SECONDS)
    assert label(*made).exit_code == 0


def test_audio_is_found_by_way_of_links(loaded, data, tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    rows = read_manifest(data).utterances
    found = [Recognized("a", -1.0)] * len(rows)
    write_labels(tmp_path / "link", rows, found, ALL, origin_of(loaded, GreedySearch()))
    for old, new in zip(rows, read_manifest(tmp_path / "link" / "manifest.jsonl").utterances, strict=True):
        assert new.audio_filepath.samefile(old.audio_filepath)


def test_offsets_stay(loaded, data, tmp_path):
    row = replace(read_manifest(data).utterances[2], offset=0.25, duration=0.5)
    write_labels(tmp_path, [row], [Recognized("a", -1.0)], ALL, origin_of(loaded, GreedySearch()))
    (new,) = read_manifest(tmp_path / "manifest.jsonl").utterances
    assert (new.offset, new.duration, new.text) == (0.25, 0.5, "a")


def test_origins(loaded, model):
    assert origin_of(loaded, BeamSearch()) == {"recognizer": f"{model.parent.name}/model", "search": "beam"}
    adapted = replace(loaded, name="model + calls")
    assert origin_of(adapted, BeamSearch())["recognizer"] == f"{model.parent.name}/model + calls"
    hub = replace(loaded, name="some/model", folder=None)
    assert origin_of(hub, BeamSearch())["recognizer"] == "some/model"


def test_two_runs_do_not_share_a_folder(loaded, data, tmp_path):
    from kikitori.io.files import locked

    with locked(tmp_path), pytest.raises(DataError, match="another run"):
        recognize(loaded, read_manifest(data).utterances, CTCGreedySearch(), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "OUT"), "--data: no manifest given; name at least one"),
        (("--data", "DATA"), "-o: no folder given; name the folder for the manifest"),
        (("--data", "DATA", "-o", "OUT", "--rate", 3, 2), "--rate: is no range; write --rate 2 30"),
        (("--data", "DATA", "-o", "OUT", "--min-confidence", "nan"), "--min-confidence: is no number; leave it out"),
        (("--data", "DATA", "-o", "OUT", "more.jsonl"), "more.jsonl: not an override; name manifests with --data"),
        (("--data", "DATA", "-o", "OUT", "--split", "dev"), "no usable row of split 'dev'"),
        (("--data", "none.jsonl", "-o", "OUT"), "none.jsonl: no such manifest"),
        (("--data", "DATA", "-o", "OUT", "--decoding", "viterbi"), "viterbi"),
        (("--data", "DATA", "-o", "OUT", "--decoding", "lexicon"), "the model has no phone head"),
    ],
)
def test_wrong_calls(arguments, message, model, data, tmp_path):
    named = {"DATA": data, "OUT": tmp_path / "out"}
    result = call("data", "pseudo-label", "--model", model, *(named.get(each, each) for each in arguments))
    assert result.exit_code == WRONG_CALL
    assert message in one_line(result)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
