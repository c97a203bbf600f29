"""`kikitori data check`: what training would leave out of manifests and why, and what they look like."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar


def check(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Manifests, or MANIFEST:SPLIT; with --recipe overrides too.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="Recipe whose data and limits are checked; manifests are then test sets beside."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print values instead of tables.")] = False,
) -> None:
    """Name every row that training would leave out and why; say what sets look like and what they share."""
    with common.one_line_errors():
        sources, overrides = common.split_overrides(arguments or [])
        if overrides and recipe is None:
            raise ConfigError("an override of what", where=overrides[0], remedy="name a recipe with --recipe")
        if not sources and recipe is None:
            raise ConfigError("no manifest given", where="data check", remedy="name one, or a recipe with --recipe")
        from kikitori.train.recipe.recipe import load_recipe
        from kikitori.workflows.data.check import check_manifests, check_recipe
        from kikitori.workflows.data.tables import check_values, format_check

        if recipe is None:
            found = check_manifests(sources, bar=progress_bar)
        else:
            found = check_recipe(load_recipe(recipe, overrides), sources, bar=progress_bar)
        print(
            json.dumps(check_values(found), ensure_ascii=False, indent=1) if as_json else format_check(found),
            flush=True,
        )
    if found.left_out:
        raise typer.Exit(common.SOME_FAILED)
