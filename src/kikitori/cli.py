"""Command line."""

from pathlib import Path

import typer

app = typer.Typer()


@app.callback()
def root() -> None: ...
@app.command()
def train(
    recipe: Path,
    overrides: list[str] = typer.Argument(None),
    output: Path = typer.Option(..., "-o"),
    resume: bool = False,
) -> None:
    from kikitori.train.run import train as run

    run(recipe, output, overrides=overrides or [], resume=resume)


def main() -> None:
    app()
