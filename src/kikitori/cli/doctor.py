"""`kikitori doctor`: what is missing on this machine."""

import typer

from kikitori.cli.common import SOME_FAILED, one_line_errors


def doctor() -> None:
    """Say what of kikitori works on this machine, what is missing, and how to get it; fails if nothing works."""
    with one_line_errors():
        from kikitori.workflows.machine.checks import checks

        broken = False
        for check in checks():
            mark = "ok" if check.remedy is None else "--"
            more = "" if check.remedy is None else f"; {check.remedy}"
            print(f"{mark}  {check.name}: {check.found}{more}", flush=True)
            broken |= check.needed and check.remedy is not None
    if broken:
        raise typer.Exit(SOME_FAILED)
