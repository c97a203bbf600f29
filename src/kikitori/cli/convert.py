"""`kikitori convert ...`: a model folder from a published model in another layout."""

import sys
from typing import Annotated

import typer

from kikitori.cli.common import Folder, folder_for, one_line_errors


def nue_asr(
    source: Annotated[str, typer.Argument(help="Folder in the layout of rinna/nue-asr, or that hub id.")],
    output: Folder = None,
) -> None:
    """Convert rinna/nue-asr; its pickled weights are read too, as tensors alone."""
    with one_line_errors():
        output = folder_for("the model", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_nue_asr(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)
