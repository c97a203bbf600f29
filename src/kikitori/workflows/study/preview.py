"""What a study would do: its cells, what of them is there already, what does not fit the budget, what is missing."""

from pathlib import Path

from kikitori.errors import DataError, counted
from kikitori.loading import find_model
from kikitori.model.safety.config import is_hub_id
from kikitori.scoring.report import REPORT
from kikitori.scoring.table import text_table
from kikitori.train.build.corpora import read_ref
from kikitori.workflows.study.budget import affordable, needed
from kikitori.workflows.study.plan import Plan, Trial
from kikitori.workflows.study.run import CELLS, Log, expected_hours, measured_hours


def preview(plan: Plan, folder: Path | None, *, log: Log) -> str:
    """A table of the cells; of a study with a budget and a folder hours are measured, by one step of each training.

    Args:
        plan: Of the study.
        folder: Of the study, if it has one yet.
        log: For what cannot be told.
    """
    here = folder or Path()
    done = {} if folder is None else measured_hours(plan, folder)
    measured = folder is not None and plan.study.budget_hours is not None
    expected = expected_hours(plan, here, log) if measured else {}
    fits = affordable(plan, expected, done)

    def state(trial: Trial) -> str:
        if folder is not None and (folder / CELLS / trial.digest / REPORT).is_file():
            return "done"
        missing = {training.digest for training in needed(plan, trial)} - {*done}
        if not missing:
            return "to be decoded"
        return "to be trained" if missing <= fits else "does not fit the budget"

    table = [["cell", "seed", "search", "hours", "state"]]
    for trial in plan.trials:
        digest = "" if trial.training is None else trial.training.digest
        hours = {**expected, **done}.get(digest)
        search = trial.decoding(here).search
        shown = "-" if hours is None else f"{hours:.2f}"
        table.append([trial.cell.name, f"{trial.seed}", search, shown, state(trial)])
    table += [[name, "-", "-", "-", f"refused: {reason}"] for name, reason in plan.refused.items()]
    total = sum({**expected, **done}[digest] for digest in {*fits} & {*expected, *done})
    lines = [
        text_table(table),
        f"{counted(len(plan.cells), 'cell')}, {len(plan.trials)} with their seeds, "
        f"{counted(len(plan.trainings), 'training')}",
    ]
    if measured:
        lines.append(f"trainings that fit: {total:.2f} of {plan.study.budget_hours:g} hours")
    elif plan.study.budget_hours is not None:
        lines.append(f"budget: {plan.study.budget_hours:g} hours; what fits is measured with -o FOLDER")
    return "\n".join([*lines, *(f"not here: {what}" for what in _missing(plan))])


def _missing(plan: Plan) -> list[str]:
    """Models that are decoded as they are and test sets, of those that are not there; of the hub nothing is asked."""
    missing = dict[str, None]()
    for model in dict.fromkeys(trial.model for trial in plan.trials if trial.model is not None):
        folder = find_model(model)
        if not Path(folder).is_dir() and not is_hub_id(folder):
            missing[f"{model}: no such model folder"] = None
    for root in dict.fromkeys(trial.data_root for trial in plan.trials):
        for ref in plan.study.test:
            try:
                read_ref(Path(root), ref)
            except DataError as error:
                missing[str(error)] = None
    return [*missing]
