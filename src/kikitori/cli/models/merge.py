"""`kikitori merge`: a recogniser and its adapter as one plain recogniser."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import Folder, folder_for, one_line_errors, warnings_as_lines
from kikitori.errors import ConfigError


def merge(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder, or the run of kikitori adapt.")],
    model: Annotated[str | None, typer.Option("--model", help="Recogniser that was adapted.")] = None,
    output: Folder = None,
) -> None:
    """Write a recogniser and its adapter as one plain recogniser."""
    with one_line_errors(), warnings_as_lines():
        output = folder_for("the recogniser", output)
        if model is None:
            raise ConfigError("no recogniser given", where="--model", remedy="name the one that was adapted")
        from kikitori.loading import find_model
        from kikitori.model.adapters.folder import merge_adapter

        merge_adapter(find_model(model), adapter, output)
        print(f"{output}", flush=True)
