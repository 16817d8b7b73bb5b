"""The training of a run that is used where none is named."""

import pathlib

from experiments.command.errors import UsageError
from experiments.figures.summaries import metric_of
from experiments.runs.directory import read_part
from experiments.runs.trained import TrainedRun


def chosen_training(
    run: TrainedRun, run_dir: pathlib.Path, name: str | None, checkpoint: str
) -> str:
    """The training of a name, or the one with the best result.

    Raises:
        UsageError: there is none of this name.
        FileNotFoundError: no training has been finished yet.
    """
    if name is None:
        results = read_part(run_dir, "summary.json")["results"]
        metric = metric_of(results[0])
        by_test = f"{'best' if checkpoint == 'best' else 'last'}_test_{metric}"
        by = f"best_validation_{metric}" if run.validated else by_test
        return max(results, key=lambda result: result[by])["run"]
    if name not in run.names:
        raise UsageError(f"training must be one of {sorted(run.names)}, got {name!r}")
    return name
