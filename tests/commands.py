"""Commands called as a user calls them, but within this process."""

from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.cli.common import WRONG_CALL


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(result, status: int = WRONG_CALL) -> str:
    """The only line on standard error of a call that did nothing."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("kikitori: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
