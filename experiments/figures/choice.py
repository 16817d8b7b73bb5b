"""The training of a run that is used where none is named."""

import pathlib

from experiments.command.errors import UsageError
from experiments.figures.summaries import metric_of
from experiments.runs.directory import read_part
from experiments.runs.plan import Plan, Training


def chosen_training(
    plan: Plan, run_dir: pathlib.Path, name: str | None, checkpoint: str
) -> Training:
    """The training of a name, or the one with the best result.

    Raises:
        UsageError: there is none of this name.
        FileNotFoundError: no training has been finished yet.
    """
    trainings = {training.name: training for training in plan.trainings}
    if name is None:
        results = read_part(run_dir, "summary.json")["results"]
        metric = metric_of(results[0])
        by_test = f"{'best' if checkpoint == 'best' else 'last'}_test_{metric}"
        by = f"best_validation_{metric}" if plan.validated else by_test
        return trainings[max(results, key=lambda result: result[by])["run"]]
    if name not in trainings:
        raise UsageError(f"training must be one of {sorted(trainings)}, got {name!r}")
    return trainings[name]
