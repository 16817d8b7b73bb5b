"""A series of runs in one directory: a run directory for each plan, and one summary of all.

A plan has one seed and one encoder; a comparison of seeds or encoders has several plans.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.command.errors import UsageError
from experiments.runs.classification import resolved, run_plan
from experiments.runs.directory import lock, read_json, write_json
from experiments.runs.plan import Plan
from jist.metrics import read_metrics, read_summary


def run_plans(
    plans: Mapping[str, Plan], directory: pathlib.Path, *, features_dir: pathlib.Path | None = None
) -> list[dict[str, Any]]:
    """Runs the trainings of several plans that have no result yet, one plan after the other.

    Trainings that an earlier call began stay part of their plan: later calls add further ratios,
    masks, numbers of workers or seeds to a directory, extend its trainings by more epochs, and
    finish interrupted trainings.

    Args:
        plans: run directory below `directory` -> plan.
        directory: holds the run directories; its `summary.json` gathers their results.
        features_dir: where features are kept; `directory/features` by default.

    Returns:
        All results in the directory, also those of runs that are not among the plans.

    Raises:
        ValueError: a run of that name has other options, or a training of the same name with other
            options.
        RuntimeError: another program uses one of the run directories.
    """
    for name, plan in plans.items():
        run_dir = directory / name
        lock(run_dir)
        plan = _extended(plan, run_dir)
        run_plan(plan, run_dir, features_dir=features_dir or directory / "features")
        gather(directory)
    return gather(directory)


def gather(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Gathers the results of all run directories below `directory` in its `summary.json`."""
    results, class_names = [], []
    for path in sorted(directory.glob("*/summary.json")):
        summary = read_summary(path)
        class_names = summary["class_names"]
        results += [{"directory": path.parent.name} | result for result in summary["results"]]
    write_json(directory / "summary.json", {"class_names": class_names, "results": results})
    return results


def _extended(plan: Plan, run_dir: pathlib.Path) -> Plan:
    """The plan, extended by the trainings that its run directory already has."""
    file = run_dir / "config.json"
    if not file.exists():
        return plan
    plan, _ = resolved(plan)
    there = _begun(Plan.from_config(read_json(file)), run_dir)
    written = [training.config() for training in there.trainings]
    added = tuple(training for training in plan.trainings if training.config() not in written)
    names = [training.name for training in there.trainings]
    for training in added:
        if training.name in names:
            raise UsageError(
                f"{run_dir} has a training {training.name!r} with other options; choose another "
                "--run-dir or remove it"
            )
    whole = dataclasses.replace(plan, trainings=there.trainings + added)
    before = dataclasses.replace(
        whole,
        trainings=there.trainings,
        head=dataclasses.replace(whole.head, epochs=there.head.epochs),
    )
    if before.config() == there.config() and whole.head.epochs >= there.head.epochs:
        write_json(file, read_json(file) | whole.config())
    return whole


def _begun(plan: Plan, run_dir: pathlib.Path) -> Plan:
    """The plan without trainings that have no epoch yet: their options may have been mistyped."""
    names = {metrics["run"] for metrics in read_metrics(run_dir)}
    kept = tuple(training for training in plan.trainings if training.name in names)
    return dataclasses.replace(plan, trainings=kept)
