"""What the trainings of a study take, and which of them fit into its budget, before any of them begins."""

import time
from collections.abc import Mapping

import torch

from kikitori.errors import TrainingError
from kikitori.train.build.task import build_task
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.workflows.study.plan import Plan, Training, Trial


def training_hours(recipe: Recipe) -> float:
    """About how long a recipe trains: one step on a batch of middle size, times the steps; without evaluations.

    Raises:
        KikitoriError: The recipe, its data or its models do not fit.
    """
    torch.manual_seed(recipe.seed)
    task = build_task(recipe, lambda _: None)
    batches = sorted(task.batches(recipe.run.epochs - 1), key=task.size)
    batch = task.load(batches[len(batches) // 2], 0)
    if batch is None:
        raise TrainingError("no file of a batch can be read", remedy="check the manifests")
    task.module.train()
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.run.precision == "bfloat16"):
            loss, _parts = task.loss(batch, BatchPosition(0, 0, 0.0))
        loss.backward()
        task.module.zero_grad()
        seconds = time.perf_counter() - started
    return seconds * len(batches) * recipe.run.epochs / 3600.0


def needed(plan: Plan, trial: Trial) -> list[Training]:
    """What has to be trained before a cell can be decoded, each behind all that it starts from."""
    starts = [plan.trainings[digest] for digest in trial.starts]
    last = [] if trial.training is None else [trial.training]
    found = {each.digest: each for training in [*starts, *last] for each in _behind_starts(plan, training)}
    return [*found.values()]


def _behind_starts(plan: Plan, training: Training) -> list[Training]:
    before = [each for digest in training.starts for each in _behind_starts(plan, plan.trainings[digest])]
    return [*before, training]


def affordable(plan: Plan, hours: Mapping[str, float], done: Mapping[str, float]) -> set[str]:
    """Digests of the trainings that fit into the budget, cell by cell; those done count with what they took.

    Args:
        plan: Of the study.
        hours: What each training takes that is not done.
        done: What those that are done have taken.
    """
    budget = plan.study.budget_hours
    if budget is None:
        return {*plan.trainings}
    taken = {*done}
    spent = sum(done.values())
    for trial in plan.trials:
        others = [each.digest for each in needed(plan, trial) if each.digest not in taken]
        cost = sum(hours.get(digest, 0.0) for digest in others)
        if spent + cost <= budget:
            spent += cost
            taken.update(others)
    return taken
