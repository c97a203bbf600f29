"""`kikitori convert nue-asr | bench combination`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import (
    one_line_errors,
)
from kikitori.errors import ConfigError


def convert_nue_asr(
    source: Annotated[str, typer.Argument(help="Folder in the layout of rinna/nue-asr, or that hub id.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
) -> None:
    """Convert rinna/nue-asr; its pickled weights are read too, as tensors alone."""
    with one_line_errors():
        if output is None:
            raise ConfigError("no folder given", where="-o", remedy="name the folder for the model")
        from kikitori.model import convert as conversion

        conversion.convert_nue_asr(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)


def bench_combination(
    rounds: Annotated[int, typer.Option("--rounds", min=5, help="Runs of each; the median counts.")] = 5,
    small: Annotated[bool, typer.Option("--small", help="The smallest inputs only.")] = False,
) -> None:
    """CTC beam search and what feeds it against other packages that are installed; rescoring against transformers."""
    with one_line_errors():
        from kikitori.bench.combination import combination, missing_peers, small_combination
        from kikitori.bench.timing import format_rows

        for package in missing_peers():
            print(f"kikitori: {package} is not installed, so it is left out", file=sys.stderr)
        print(format_rows(list(small_combination(rounds) if small else combination(rounds))))
