"""`kikitori adapt`: an adapter for a domain, and what it gains there and costs elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import Model, Resume, RunFolder, Split, one_line_errors, only_overrides, warnings_as_lines
from kikitori.errors import ConfigError

if TYPE_CHECKING:
    from kikitori.train.recipe.adaptation import Adaptation


def adapt(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides such as lora.rank=8 or run.epochs=3.")
    ] = None,
    model: Model = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest to adapt to; may be repeated.")] = None,
    split: Split = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text to adapt to instead, plain, .gz, .xz.")
    ] = None,
    dev: Annotated[
        list[Path] | None, typer.Option("--dev", help="New domain's manifest, to choose and report.")
    ] = None,
    dev_split: Split = None,
    replay: Annotated[list[Path] | None, typer.Option("--replay", help="Old domain's manifest, to mix in.")] = None,
    replay_split: Split = None,
    source: Annotated[list[Path] | None, typer.Option("--source", help="Old domain's manifest, to report.")] = None,
    source_split: Split = None,
    output: RunFolder = None,
    resume: Resume = False,
) -> None:
    """Adapt a recogniser to a domain: an adapter, and what it gains and costs."""
    with one_line_errors():
        settings = only_overrides(overrides)
        if output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one")
        from kikitori.loading import find_model
        from kikitori.workflows import adapt as adaptation

        rows = adaptation.Rows
        domain = adaptation.Domain(
            data=rows(data or (), split),
            text=text or (),
            dev=rows(dev or (), dev_split),
            replay=rows(replay or (), replay_split),
            source=rows(source or (), source_split),
        )
        recipe = adaptation.adaptation_recipe(str(find_model(model)), domain, settings)
        run_adaptation(recipe, output, resume=resume)


def run_adaptation(recipe: "Adaptation", output: Path, *, resume: bool, weights_only: bool = False) -> None:
    """Trains the adapter of a recipe and prints the report."""
    from kikitori.workflows import adapt as adaptation

    with warnings_as_lines():
        report = adaptation.adapt(recipe, output, resume=resume, weights_only=weights_only)
    if report is not None:
        print(adaptation.format_report(report), flush=True)
