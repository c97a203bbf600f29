"""`kikitori study`: a recipe with what is varied in it, trained, decoded, scored and compared."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="Study, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of all cells such as data_root=FOLDER run.epochs=1.")
    ] = None,
    output: common.Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run and what is missing; run nothing.")
    ] = False,
) -> None:
    """Train, decode and score every cell of a study, and compare them. Stopped, it goes on with the same command."""
    with common.one_line_errors():
        for override in overrides or []:
            if "=" not in override:
                raise ConfigError("not an override", where=override, remedy="write section.key=value")
        from kikitori.workflows.study.plan import plan_study
        from kikitori.workflows.study.spec import load_study

        found = load_study(file, overrides or [])
        plan = plan_study(found, file)
        if dry_run:
            from kikitori.workflows.study.preview import preview

            print(preview(plan, output, log=_say), flush=True)
            return
        output = common.folder_for("the study", output)
        common.make_folder(output)
        from kikitori.io.files import locked
        from kikitori.workflows.study.report import write_study
        from kikitori.workflows.study.run import Stopped, run_study

        try:
            with locked(output):
                outcomes = run_study(plan, output, _say)
                print(write_study(output, str(file), plan, outcomes), flush=True)
        except Stopped:
            _say("stopped; the same command goes on")
            raise typer.Exit(common.INTERRUPTED) from None
        if any(outcome.sets is None for outcome in outcomes):
            raise typer.Exit(common.SOME_FAILED)


def _say(line: str) -> None:
    print(f"kikitori: {line}", file=sys.stderr, flush=True)
