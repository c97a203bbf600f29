"""Reports: numbers, files, their shapes, and odd rows."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kikitori.errors import DataError
from kikitori.scoring import report as module
from kikitori.scoring.predictions import read_predictions
from kikitori.scoring.report import Prediction, build_report, format_table, write_report
from kikitori.types import Utterance

KEYS = {
    *("wer", "cer", "substitutions", "deletions", "insertions", "reference_words", "utterances", "audio_seconds"),
    *("compute_seconds", "rtfx", "normalizer", "decoding", "model", "versions", "llm_passes", "replaced", "failed"),
    *("wer_ci", "positions_per_second"),
}


def prediction(text: str | None, pred: str, *, time: float = 0.5, **fields: Any) -> Prediction:
    outcome = {key: fields.pop(key) for key in ("error", "llm_passes", "flags", "speech_positions") if key in fields}
    row = {"audio_filepath": Path("/data/a.wav"), "duration": 2.0, "language": "en", "utt_id": "a"} | fields
    return Prediction(Utterance(text=text, **row), pred, time, **outcome)


def build(sets: dict[str, list[Prediction]], normalizer: str | None = None) -> dict[str, Any]:
    return build_report(sets, normalizer=normalizer, decoding="greedy", model="mini-en", versions={"kikitori": "0.1.0"})


@pytest.fixture
def sets() -> dict[str, list[Prediction]]:
    return {
        "english": [
            prediction("The colour is blue.", "the color was blue", llm_passes=4, utt_id="e1"),
            prediction("twenty one cats", "21 cats", utt_id="e2", flags=("replaced",)),
            prediction("it failed", "", utt_id="e3", error="cannot be decoded"),
            prediction(None, "no reference", utt_id="e4"),
        ],
        "japanese": [prediction("が、ある。", "か ある", language="ja", utt_id="j1", time=1.0)],
    }


class Checker(HTMLParser):
    """Checks that elements nest and that nothing is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe"}
        assert not {name for name, _ in attrs} & {"href", "onclick"}
        assert all((value or "").startswith("data:") for name, value in attrs if name == "src")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_numbers(sets: dict[str, list[Prediction]]) -> None:
    report = build(sets)
    assert set(report) >= KEYS | {"sets"}
    english, japanese = report["sets"]["english"], report["sets"]["japanese"]
    assert set(english) >= KEYS
    assert (english["wer"], english["reference_words"], english["deletions"]) == (3 / 8, 8, 2)
    assert (english["utterances"], english["scored"], english["failed"], english["replaced"]) == (4, 3, 1, 1)
    assert english["failures"] == [{"id": "e3", "error": "cannot be decoded"}]
    assert (english["normalizer"], japanese["normalizer"]) == ("whisper_en", "nfkc_ja")
    assert (japanese["wer"], japanese["cer"]) == (1.0, 1 / 3)
    assert (report["wer"], report["reference_words"], report["utterances"]) == (4 / 9, 9, 5)
    assert report["normalizer"] == "nfkc_ja, whisper_en"
    assert (report["audio_seconds"], report["compute_seconds"]) == (8.0, 3.0)  # without what failed
    assert report["rtfx"] == pytest.approx(8 / 3)
    assert report["llm_passes"] == 4
    assert report["wer_ci"][0] <= report["wer"] <= report["wer_ci"][1]


def test_positions_per_second_are_those_of_rows_that_an_llm_read() -> None:
    read = [prediction("a", "a", speech_positions=25), prediction("a", "a", speech_positions=6, duration=3.0)]
    unread = prediction("a", "", error="cannot be decoded", duration=100.0)
    report = build({"read": [*read, unread], "ctc": [unread]})
    assert report["sets"]["read"]["positions_per_second"] == report["positions_per_second"] == 31 / 5
    assert report["sets"]["ctc"]["positions_per_second"] is None


def test_chosen_normalizer(sets: dict[str, list[Prediction]]) -> None:
    report = build(sets, "none")
    assert {report["normalizer"], *(part["normalizer"] for part in report["sets"].values())} == {"none"}
    assert report["sets"]["english"]["substitutions"] > 1


def test_nothing_to_score_is_null_not_zero(tmp_path: Path) -> None:
    for sets in ({}, {"empty": []}, {"blind": [prediction(None, "text", time=0.0)]}):
        report = build(sets)
        assert (report["wer"], report["cer"], report["wer_ci"], report["rtfx"]) == (None, None, None, None)
        write_report(tmp_path, report, sets)
        assert "-" in format_table(report)


def test_empty_reference_counts_insertions() -> None:
    report = build({"set": [prediction("", "two words"), prediction("one word", "one word")]})
    assert (report["wer"], report["insertions"]) == (1.0, 2)


def test_files(sets: dict[str, list[Prediction]], tmp_path: Path) -> None:
    extra = {"city": "京都", "text": "ignored", "snr": math.nan, "nested": {"x": [math.inf]}}
    sets["english"].append(prediction("Raw, Text", "Raw Text!", extra=extra, speaker="s1", utt_id="e5"))
    report = build(sets)
    paths = write_report(tmp_path / "new" / "out", report, sets)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {path.name for path in paths}
    assert {path.name for path in paths} == {"report.json", "report.html", "predictions.jsonl"}
    folder = tmp_path / "new" / "out"
    assert json.loads((folder / "report.json").read_text("utf-8"), parse_constant=pytest.fail) == report
    lines = (folder / "predictions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert len(rows) == 6
    assert all(list(row)[:5] == ["audio_filepath", "duration", "text", "pred_text", "time"] for row in rows)
    assert {"id", "set", "speaker", "language", "error", "flags"} <= set(rows[0])
    assert (rows[2]["pred_text"], rows[2]["error"], rows[3]["text"]) == ("", "cannot be decoded", None)
    assert (rows[4]["text"], rows[4]["pred_text"], rows[4]["city"]) == ("Raw, Text", "Raw Text!", "京都")
    assert (rows[4]["snr"], rows[4]["nested"]) == (None, {"x": [None]})
    assert "京都" in lines[4]


def test_page(sets: dict[str, list[Prediction]], tmp_path: Path) -> None:
    attack = "<script>alert('x')</script> & \"b\""
    sets[attack] = [prediction(attack, attack * 2, utt_id=attack, error=attack, flags=(attack,))]
    write_report(tmp_path, build(sets, "none"), sets)
    page = (tmp_path / "report.html").read_text("utf-8")
    checker = parse(page)
    assert "<script" not in page
    assert attack in checker.text
    assert "<mark><del>is</del> <ins>was</ins></mark>" in page
    assert "no reference" not in checker.text


def test_page_aligns_japanese_by_character(sets: dict[str, list[Prediction]], tmp_path: Path) -> None:
    write_report(tmp_path, build(sets), sets)
    assert "<mark><del>が</del> <ins>か</ins></mark>ある" in (tmp_path / "report.html").read_text("utf-8")


def test_page_shows_the_worst_fifty(tmp_path: Path) -> None:
    sets = {"many": [prediction("a b c " * n, "x " * n, utt_id=f"u{n}") for n in range(80)]}
    write_report(tmp_path, build(sets), sets)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<article>") == module.WORST_UTTERANCES
    assert page.index("many: u79 ") < page.index("many: u78 ") < page.index("many: u30 ")
    assert "many: u29 " not in page


def test_predictions_know_where_audio_lies_inside_another_file(tmp_path: Path):
    places = [(512, 99), None]
    rows = [prediction("a", "", error="e", utt_id=f"{place}", byte_range=place, extra={"k": 1}) for place in places]
    write_report(tmp_path, build({"set": rows}), {"set": rows})
    found = read_predictions(tmp_path / "predictions.jsonl")["set"]
    assert [row.utterance.byte_range for row in found] == places
    assert [row.utterance.extra for row in found] == [{"k": 1}] * 2


def test_page_leaves_out_what_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALIGNED_PAIRS", 3)
    sets = {"set": [prediction("a b", "c d", utt_id="long"), prediction("a", "b", utt_id="short")]}
    write_report(tmp_path, build(sets), sets)
    text = parse((tmp_path / "report.html").read_text("utf-8")).text
    assert "1 utterance too long" in text
    assert "set: short" in text
    assert "set: long" not in text


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    sets = {"set": [prediction("a", "b", audio_filepath=Path("/data/\udce9.wav"), utt_id="\udce9")]}
    write_report(tmp_path, build(sets), sets)
    assert json.loads((tmp_path / "predictions.jsonl").read_text("utf-8"))["audio_filepath"] == "/data/\udce9.wav"


def test_failed_write_leaves_the_old_file(sets: dict[str, list[Prediction]], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("old")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(blocked, build(sets), sets)
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path, build(sets), sets)
    assert blocked.read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_table(sets: dict[str, list[Prediction]]) -> None:
    lines = format_table(build(sets)).splitlines()
    assert lines[0].split() == ["set", "utterances", "WER", "CER", "sub", "del", "ins", "RTFx"]
    assert [line.split()[0] for line in lines] == ["set", "english", "japanese", "total"]
    assert lines[1].split()[1:3] == ["4", "0.3750"]
    assert len({len(line) for line in lines}) == 1
