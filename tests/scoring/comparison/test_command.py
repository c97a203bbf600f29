"""`kikitori compare`: files in, tables, files and errors out."""

import json

from kikitori.cli.common import WRONG_CALL
from tests.commands import call, one_line
from tests.scoring.comparison.systems import LARGE, SMALL, prediction, written
from tests.scoring.test_report import Checker


def test_from_folders_to_files(tmp_path):
    small, large = written(tmp_path / "small", SMALL), written(tmp_path / "large", LARGE)
    forms = ("--normalizer", "whisper_en", "--normalizer", "basic")
    result = call("compare", small, f"the <big> one={large}", *forms, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == (tmp_path / "out" / "comparison.md").read_text()
    assert result.stdout.startswith("# Comparison\n\nthe <big> one makes the fewest word errors: WER 0.0909")
    assert "| the \\<big\\> one | 0 | 0 | model m; decoding greedy;" in result.stdout
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [each["normalizer"] for each in values["normalizers"]] == ["whisper_en", "basic"]
    change = values["normalizers"][0]["scores"][1]["change"]
    assert (change["better"], change["worse"]) == (3, 1)
    page = (tmp_path / "out" / "comparison.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    for piece in ("the &lt;big&gt; one", "<svg", 'class="verdict"', "<mark><del>end</del> <ins>ant</ins></mark>"):
        assert piece in page


def test_missing_rows_are_refused_or_named(tmp_path):
    small, large = written(tmp_path / "small", SMALL), written(tmp_path / "large", LARGE[:3])
    assert "large: 1 of 4 utterances are missing: u3" in one_line(call("compare", small, large))
    result = call("compare", small, large / "predictions.jsonl", "--missing", "delete")
    assert result.exit_code == 0
    assert "kikitori: large has no prediction for u3\n" in result.stderr
    assert "| large | 0 | 1 |" in result.stdout


def test_wrong_calls(tmp_path):
    small = written(tmp_path / "small", SMALL)
    assert "name two or more" in one_line(call("compare", small))
    assert "a: two systems have this name" in one_line(call("compare", f"a={small}", f"a={small}"))
    assert "small: two systems have this name" in one_line(call("compare", small, small))
    assert "unknown normalizer" in one_line(call("compare", small, small, "--normalizer", "x"), WRONG_CALL)
    assert "cannot be read" in one_line(call("compare", small, tmp_path / "nothing"))
    refused = one_line(call("compare", small, small, "--language", "japanese"), WRONG_CALL)
    assert "--language: 'japanese' is no code of a language; write one such as en or ja" in refused


def test_folders_of_the_same_name_are_told_apart_by_those_above(tmp_path):
    folders = [written(tmp_path / run / "report", SMALL) for run in ("one", "two")]
    assert "| two/report | " in call("compare", *folders).stdout


def test_fillers_are_counted_and_left_out_on_demand(tmp_path):
    rows = (
        [prediction("a", "um see the end", "see the end")],
        [prediction("a", "um see the end", "um see the end")],
    )
    one, other = (written(tmp_path / name, each) for name, each in zip("ab", rows, strict=True))
    kept = call("compare", one, other, "--normalizer", "none").stdout
    assert "b makes the fewest word errors: WER 0.0000, beside 0.2500 of a" in kept
    assert "fillers as the normalizer has them: 1 said, 0 recognised (list 1)" in kept
    removed = call("compare", one, other, "--normalizer", "none", "--fillers", "remove").stdout
    assert "a and b make equally many word errors: WER 0.0000" in removed
    assert "fillers left out: 1 said, 1 recognised (list 1)" in removed
    german = [written(tmp_path / name, [prediction("a", "äh", "äh", language="de")]) for name in "cd"]
    assert "--fillers remove: fillers are known" in one_line(call("compare", *german, "--fillers", "remove"))
