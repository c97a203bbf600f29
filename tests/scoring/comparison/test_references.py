"""NIST's files as rows that are scored."""

import pytest

from kikitori.errors import DataError
from kikitori.scoring.comparison.references import read_ctm_predictions, read_references
from tests.commands import WRONG_CALL, call, one_line
from tests.scoring.comparison.systems import LARGE, SMALL, written

STM = """a 1 s 0 2 the crow flew
a 1 s 2 3 ignore_time_segment_in_scoring
a 1 t 5 7 home
b 1 s 0 1 the end
"""


def ctm(*words, recording="a"):
    return "".join(f"{recording} 1 {start} 0.2 {word}\n" for start, word in words)


@pytest.fixture
def stm(tmp_path):
    (tmp_path / "ref.stm").write_text(STM)
    return tmp_path / "ref.stm"


def test_words_belong_where_their_middle_lies(tmp_path, stm):
    words = (1.95, "late"), (0.1, "the"), (2.5, "ignored"), (4.2, "near"), (3.0, "nearer"), (8, "behind")
    (tmp_path / "a.ctm").write_text(ctm(*words))
    rows = read_ctm_predictions(tmp_path / "a.ctm", read_references(stm))
    # The middle of "late" lies in what is not scored; recording b has no word, and is missing.
    assert [row.pred_text for row in rows] == ["the nearer", "near behind"]
    assert [(row.utterance.utt_id, row.utterance.offset) for row in rows] == [("a", 0.0), ("a", 5.0)]


def test_times_and_ids_decide_in_the_command(tmp_path, stm):
    right = ctm((0.1, "the"), (0.5, "crow"), (1, "flew"), (5.5, "home")) + ctm((0, "the"), (0.5, "end"), recording="b")
    (tmp_path / "right.ctm").write_text(right)
    (tmp_path / "half.ctm").write_text("".join(right.splitlines(keepends=True)[:4]))
    systems = tmp_path / "half.ctm", tmp_path / "right.ctm"
    assert "1 of 3 utterances are missing: b" in one_line(call("compare", *systems, "--reference", stm))
    result = call("compare", *systems, "--reference", stm, "--missing", "delete", "--language", "en")
    assert "right makes the fewest word errors: WER 0.0000, beside 0.3333 of half" in result.stdout, result.output
    assert "kikitori: half has no prediction for b" in result.stderr
    (tmp_path / "half.ctm").write_text("".join(right.splitlines(keepends=True)[4:]))
    lines = call("compare", *systems, "--reference", stm, "--missing", "delete").stderr.splitlines()
    assert lines == [f"kikitori: half has no prediction for a from {start} s on" for start in (0, 5)]
    assert "it has no references" in one_line(call("compare", *systems))


def test_texts_for_sclite_come_back_as_a_comparison(tmp_path):
    folders = [written(tmp_path / name, rows) for name, rows in (("small", SMALL), ("large", LARGE))]
    first = call("compare", *folders, "--nist", "-o", tmp_path / "out")
    assert first.exit_code == 0, first.output
    out = tmp_path / "out"
    assert (out / "small.trn").read_text().startswith("the crow flew (000000-u0)\n")
    again = call(
        "compare", out / "small.trn", out / "large.trn", "--reference", out / "reference.trn", "--language", "en"
    )
    assert again.stdout.splitlines()[2] == first.stdout.splitlines()[2]
    assert "How long" not in again.stdout
    assert (out / "reference.stm").read_text().splitlines()[1] == "a 1 unknown 0.000 3.000 Crows fly"
    assert "--nist: no folder" in one_line(call("compare", *folders, "--nist"))


def test_files_for_sclite_have_names_of_their_own(tmp_path):
    small, nist = written(tmp_path / "small", SMALL), ("--nist", "-o", tmp_path / "out")
    refused = one_line(call("compare", f"reference={small}", f"b={small}", *nist), WRONG_CALL)
    assert "reference: another reference.trn is written for --nist; name it otherwise" in refused
    assert "a-b: another a-b.trn" in one_line(call("compare", f"a/b={small}", f"a-b={small}", *nist), WRONG_CALL)
    assert not (tmp_path / "out" / "comparison.json").exists()


def test_rows_without_a_reference_are_refused(tmp_path):
    (tmp_path / "ref.trn").write_text("a (u0)\n")
    (tmp_path / "hyp.trn").write_text("a (u0)\nb (u1)\n")
    small = written(tmp_path / "small", SMALL)
    message = one_line(call("compare", tmp_path / "hyp.trn", small, "--reference", tmp_path / "ref.trn"))
    assert "hyp.trn: u1: no reference has this id" in message
    assert "small: u1: it has no reference" in one_line(
        call("compare", small, f"b={small}", "--reference", tmp_path / "ref.trn")
    )


def test_manifests_are_references_of_recordings(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "x/a.wav", "duration": 3.0, "text": "the crow"}\n')
    (tmp_path / "a.ctm").write_text(ctm((0, "the"), (1, "cow")))
    (row,) = read_ctm_predictions(tmp_path / "a.ctm", read_references(tmp_path / "m.jsonl"))
    assert (row.utterance.text, row.pred_text) == ("the crow", "the cow")
    (tmp_path / "a.ctm").write_text(ctm((0, "the"), recording="other"))
    with pytest.raises(DataError, match="other 1: no reference has this recording"):
        read_ctm_predictions(tmp_path / "a.ctm", read_references(tmp_path / "m.jsonl"))
