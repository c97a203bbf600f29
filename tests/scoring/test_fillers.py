"""Fillers counted and left out of what is scored."""

import pytest

from kikitori.errors import ConfigError
from kikitori.scoring.fillers import check_fillers, count_fillers, leave_out_fillers
from kikitori.scoring.report import build_report, write_report
from tests.scoring.comparison.systems import prediction

SETS = {"x": [prediction("a", "well um I er see", "well I huh um see"), prediction("b", None, "um")]}


def test_both_texts_and_all_hypotheses_lose_them(tmp_path):
    counts = count_fillers(SETS, removed=True)
    assert str(counts) == "fillers left out: 2 said, 2 recognised (list 1)"
    first, other = leave_out_fillers(SETS)["x"]
    assert (first.utterance.text, first.pred_text, first.nbest[0].text) == ("well I see", "well I see", "well I see")
    assert (other.utterance.text, other.pred_text) == (None, "")
    scored = leave_out_fillers(SETS)
    report = build_report(scored, normalizer="basic", decoding="d", model="m", versions={}, fillers=counts)
    assert report["wer"] == 0.0
    assert report["fillers"] == {"reference": 2, "predicted": 2, "removed": True, "version": 1}
    assert build_report(SETS, normalizer="basic", decoding="d", model="m", versions={})["wer"] > 0.0
    write_report(tmp_path, report, SETS, scored)
    assert "well I huh um see" in (tmp_path / "predictions.jsonl").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "fillers left out: 2 said" in page
    assert "huh" not in page


def test_other_languages_are_refused():
    check_fillers([row.utterance for row in SETS["x"]])
    with pytest.raises(ConfigError, match="known of en and ja alone"):
        check_fillers([prediction("a", "äh", "äh", language="de").utterance])
