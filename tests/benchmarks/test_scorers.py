"""Our counts beside the textbook's, and beside jiwer and sclite where they are installed."""

import shutil
from pathlib import Path

import pytest

import scorers
from kikitori.scoring.metrics import word_errors


def distance(said, written):
    row = list(range(len(written) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(written, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def test_counts_are_those_of_the_textbook():
    for said, written in scorers.random_pairs(200):
        counts = word_errors(said, written)
        assert counts.errors == distance(said.split(), written.split())
        assert counts.reference_length + counts.insertions - counts.deletions == len(written.split())


def test_jiwer_agrees():
    pytest.importorskip("jiwer", reason="no jiwer")
    assert scorers.jiwer_differences(scorers.random_pairs(200)) == []


def test_sclite_counts_no_fewer(tmp_path):
    program = Path(shutil.which("sclite") or scorers.SCLITE)
    if not program.is_file():
        pytest.skip("no sclite (Debian: sctk)")
    pairs = scorers.random_pairs(50)
    assert scorers.sclite_line(pairs, scorers.sclite_counts(program, pairs, tmp_path))[1]
