"""The command runs every suite, and both sides of each row do the same work."""

from typer.testing import CliRunner

from kikitori.bench.decoding import decoding, missing_peers
from kikitori.cli import app
from kikitori.cli.common import WRONG_CALL


def test_every_row_is_there():
    rows = list(decoding(1, ["prefix_scoring", "beam"], small=True))
    names = [row.name for row in rows]
    assert names.count("kikitori") == 3
    assert "transformers" in names
    assert ("espnet" in names) == (not missing_peers())
    assert all(row.seconds > 0 for row in rows)
    share = next(row.note for row in rows if row.work.startswith("joint"))
    assert 0 < float(share.removeprefix("CTC takes ").removesuffix("%")) < 100


def test_command():
    result = CliRunner().invoke(app, ["bench", "decoding", "speculative", "--small"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["work", "contender", "ms", "ratio", "note"]
    assert "16 utterances" in result.stdout
    assert "output matrix" in result.stdout


def test_no_such_suite():
    result = CliRunner().invoke(app, ["bench", "decoding", "nothing"])
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    assert "no such suite: 'nothing'" in result.stderr
