"""`kikitori merge`: a recogniser and its adapter as one plain recogniser."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import Folder, Model, folder_for, one_line_errors, warnings_as_lines


def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder, or the run of kikitori adapt.")],
    model: Model = None,
    output: Folder = None,
) -> None:
    """Write a recogniser and its adapter as one plain recogniser."""
    with one_line_errors(), warnings_as_lines():
        output = folder_for("the recogniser", output)
        from kikitori.loading import find_model
        from kikitori.model.adapters.folder import merge_adapter

        merge_adapter(find_model(model), adapter, output)
        print(f"{output}", flush=True)
