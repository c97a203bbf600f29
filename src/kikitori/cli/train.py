"""`kikitori train`: what a recipe describes, trained."""

from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.adapt import run_adaptation
from kikitori.cli.common import Resume, RunFolder, one_line_errors
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as run.epochs=10.")] = None,
    output: RunFolder = None,
    resume: Resume = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="With --resume: weights and position alone, the rest afresh.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = False,
    gpu_memory: Annotated[
        float | None, typer.Option(help="With --dry-run: on how many GPUs of so many GB it fits.", min=1.0)
    ] = None,
) -> None:
    """Train what a recipe describes."""
    with one_line_errors():
        for override in overrides or []:
            if "=" not in override:
                raise ConfigError("not an override", where=override, remedy="write section.key=value")
        from kikitori.train import run
        from kikitori.train.recipe.recipe import load_recipe

        if gpu_memory is not None and not dry_run:
            raise ConfigError("nothing is estimated", where="--gpu-memory", remedy="add --dry-run")
        if dry_run:
            run.dry_run(
                recipe,
                overrides or [],
                gpu_memory=gpu_memory,
                log=lambda line: print(line, flush=True),
                bar=progress_bar,
            )
        elif output is None:
            raise ConfigError("no run folder given", where="-o", remedy="name one, or use --dry-run")
        else:
            loaded = load_recipe(recipe, overrides or [])
            if loaded.task == "adaptation":
                run_adaptation(loaded, output, resume=resume, weights_only=weights_only)
            else:
                run.train_recipe(loaded, output, resume=resume, weights_only=weights_only)
