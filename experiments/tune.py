r"""Searches recipes that close the gap between n workers and one, on held-out training images.

    python -m experiments.tune --dataset folder:data/cifar10 --mask-ratio 0.5 --epochs 15 \
        --run-dir runs/tune

In Kariotakis et al. (CPAL 2024) independent subnet training with 2 and 4 workers fell behind one
worker, and the authors expected tuning to close the gap. For every number of workers each option is
varied alone, starting from the default recipe; the best values of all options together make one
more recipe. Validation accuracy chooses the recipe and its epoch, on the validation split of a data
set that brings one; the chosen recipe and the default
are then trained with the other seeds as well. Test accuracy is computed only then, and only for
these two.

As in `experiments.compare`, n workers train for n times `--epochs` epochs, and two comparisons are
read from the same curve: at equal examples in total, up to `--epochs`, and at equal examples per
worker. Writes `tuning.json`, which lists the options of the search; run again, it resumes where it
stopped, and with further numbers of workers it grows. More `--epochs` extend every training; the
shorter search is kept in `tuning.json` under "shorter". A search with any other option, such as
another masking ratio, needs its own run directory. Expected on 2 CPU cores: hours.
"""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import (
    ExperimentOptions,
    HeadOptions,
    ImageOptions,
    StrategyOptions,
    pick,
)
from experiments.runs.bands import in_full
from experiments.runs.directory import differences, grows, lock, read_json, write_json
from experiments.runs.inputs import open_inputs
from experiments.runs.plan import Plan, Training
from experiments.runs.recipes import EACH, TOTAL, Recipe, Score, combined, score, varied
from experiments.runs.series import run_plans
from jist.metrics import read_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneOptions(Options, ExperimentOptions):
    """Options of the search; those of the head are the default recipe's."""

    run_dir: pathlib.Path = pathlib.Path("runs/tune")
    """Where results are written; the same directory resumes where it stopped."""
    epochs: int = 15
    """How often the examples are seen: by all workers together, and by each of them."""
    validation: float = 0.1
    """Share of the training examples of each class held out to choose recipe and epoch by; of a
    data set that brings a validation split, that is taken."""
    workers: tuple[int, ...] = (1, 2, 4)
    """Numbers of workers n."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The recipe is chosen with the first seed; the chosen one is trained with all."""
    learning_rates: tuple[float, ...] = (3e-4, 3e-3)
    """Learning rates to try beside the default."""
    local_steps: tuple[int, ...] = (10, 200)
    """Local steps J to try beside 50."""
    optimizer_states: tuple[str, ...] = ("reset",)
    """Handling of the optimiser's state between rounds to try beside carry."""
    norms: tuple[str, ...] = ("scale",)
    """Corrections of subnetworks to try beside the default."""
    wide: bool = True
    """Whether to try hidden layers n times as wide, so that a worker's part is as wide as one
    worker's network."""
    seed: int = dataclasses.field(default=0, init=False)


def main(options: TuneOptions) -> None:
    """Searches, confirms and reports."""
    if not 0 < options.validation < 1:
        raise UsageError(f"validation must lie in (0, 1), got {options.validation}")
    if not options.seeds:
        raise UsageError("seeds must name at least one, got none")
    images = in_full(pick(options, ImageOptions))
    if "validation" in open_inputs(images).split_names:
        if options.validation != TuneOptions.validation:
            raise UsageError(
                f"--validation {options.validation:g} holds out training examples, and "
                f"{options.dataset} brings a validation split: leave --validation out to use that"
            )
        options = dataclasses.replace(options, validation=0.0)
    lock(options.run_dir)  # the report is read here, and written much later
    report = begun(options)
    for workers in options.workers:
        found = {}
        recipes = to_try(options, workers)
        scores = train(options, workers, recipes, options.seeds[0])
        for comparison in (TOTAL, EACH):
            together = combined(recipes, scores[comparison])
            later = train(options, workers, [together], options.seeds[0])[comparison]
            candidates = scores[comparison] | later
            chosen = max(candidates, key=lambda r: candidates[r].validation)
            found[comparison] = candidates, chosen
        for comparison, (candidates, chosen) in found.items():
            report[comparison][str(workers)] = {
                "tried": {str(r): s.validation for r, s in candidates.items()},
                "default": confirm(options, workers, recipes[0], comparison),
                "chosen": confirm(options, workers, chosen, comparison),
            }
            write_json(options.run_dir / "tuning.json", report)
    print_report(report)
    print(f"written: {options.run_dir}/tuning.json")


def begun(options: TuneOptions) -> dict[str, Any]:
    """The report in the run directory, with the numbers of workers that are done, or an empty one.

    An empty report keeps the one of fewer epochs that it replaces.

    Raises:
        ValueError: it belongs to another search.
    """
    file, here = options.run_dir / "tuning.json", searched(options)
    if not file.exists():
        return {"options": here, TOTAL: {}, EACH: {}}
    report = read_json(file)
    # An earlier version did not write the options.
    noted = "options" in report
    grown = ["epochs"] if noted and grows(report["options"], here, "epochs") else []
    differ = (
        differences(report["options"], here, besides=grown)
        if noted
        else ["it does not list its options"]
    )
    if differ:
        raise UsageError(
            f"{file} belongs to another search; choose another --run-dir or remove the file "
            "(finished trainings are not repeated): " + "; ".join(differ)
        )
    if grown:
        shorter = [*report.pop("shorter", []), report]
        return {"options": here, TOTAL: {}, EACH: {}, "shorter": shorter}
    return report


def searched(options: TuneOptions) -> dict[str, Any]:
    """The options that decide the outcome for a number of workers, as read back from JSON."""
    found = dataclasses.asdict(options) | {"mask_ratio": options.ratio}
    for name in ("run_dir", "features_dir", "data_dir", "encode_batch", "debug", "seed", "workers"):
        del found[name]
    return json.loads(json.dumps(found))


def default(options: TuneOptions) -> Recipe:
    """The default recipe: that of CPAL 2024, Table 3, or as changed by the options."""
    how = StrategyOptions()
    return Recipe(
        options.learning_rate, how.local_steps, how.optimizer_state, options.norm, options.hidden
    )


def to_try(options: TuneOptions, workers: int) -> list[Recipe]:
    """The default recipe, and those that differ from it in one option.

    A single worker has all neurons in every round, so only options of its head are varied.
    """
    tried: dict[str, tuple] = {"learning_rate": options.learning_rates}
    if workers > 1:
        tried |= {
            "local_steps": options.local_steps,
            "optimizer_state": options.optimizer_states,
            "norm": options.norms,
        }
        if options.wide:
            tried["hidden"] = (tuple(workers * width for width in options.hidden),)
    return varied(default(options), tried)


def train(
    options: TuneOptions, workers: int, recipes: list[Recipe], seed: int
) -> dict[str, dict[Recipe, Score]]:
    """Runs the trainings that have no result yet; comparison -> recipe -> score."""
    names = {recipe: f"{workers}-workers-{recipe}-seed-{seed}" for recipe in recipes}
    plans = {name: plan(options, workers, recipe, seed) for recipe, name in names.items()}
    features = options.features_dir or options.run_dir / "features"
    run_plans(plans, options.run_dir, features_dir=features)
    curves = {
        recipe: read_curve(options.run_dir / name, plans[name].trainings[0].name)
        for recipe, name in names.items()
    }
    last = {TOTAL: options.epochs, EACH: workers * options.epochs}
    return {
        comparison: {
            recipe: score(curve, epochs, task_metric(curve)) for recipe, curve in curves.items()
        }
        for comparison, epochs in last.items()
    }


def plan(options: TuneOptions, workers: int, recipe: Recipe, seed: int) -> Plan:
    """One training, long enough for both comparisons."""
    head = dataclasses.replace(
        pick(options, HeadOptions),
        learning_rate=recipe.learning_rate,
        norm=recipe.norm,
        hidden=recipe.hidden,
        epochs=workers * options.epochs,
    )
    how = StrategyOptions(
        workers=workers,
        local_steps=recipe.local_steps,
        optimizer_state=recipe.optimizer_state,
    )
    return Plan(
        experiment="tune",
        images=dataclasses.replace(pick(options, ImageOptions), seed=seed),
        head=head,
        trainings=(Training(mask_ratio=options.ratio, how=how),),
    )


def task_metric(curve: list[dict[str, Any]]) -> str:
    """What recipes are chosen by: accuracy, or precision at 1 where examples have many labels."""
    many = "validation_precision_at_1"
    return many.removeprefix("validation_") if many in curve[0] else "accuracy"


def read_curve(run_dir: pathlib.Path, training: str) -> list[dict[str, Any]]:
    """The metrics of every epoch of one training; a run directory may hold several."""
    return [metrics for metrics in read_metrics(run_dir) if metrics["run"] == training]


def confirm(options: TuneOptions, workers: int, recipe: Recipe, comparison: str) -> dict[str, Any]:
    """The recipe, and its test accuracy, or other metric, with every seed."""
    scores = [train(options, workers, [recipe], s)[comparison][recipe] for s in options.seeds]
    metric, found = scores[0].metric, [score.test for score in scores]
    return {
        "recipe": dataclasses.asdict(recipe),
        "epochs": [score.epoch for score in scores],
        "metric": metric,
        f"validation_{metric}": [score.validation for score in scores],
        f"test_{metric}": found,
        f"test_{metric}_mean": statistics.fmean(found),
    }


def print_report(report: dict[str, Any]) -> None:
    """Prints the default and the chosen recipe of every number of workers."""
    for comparison in (TOTAL, EACH):
        metrics = {row["default"].get("metric", "accuracy") for row in report[comparison].values()}
        metric = next(iter(metrics), "accuracy")
        title = f"Test {metric.replace('_', ' ')}, {comparison}"
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("workers", "default", "chosen"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("chosen recipe")
        for workers, row in sorted(report[comparison].items(), key=lambda item: int(item[0])):
            shown = [_percent(row[which][f"test_{metric}"]) for which in ("default", "chosen")]
            recipe = row["chosen"]["recipe"]
            table.add_row(
                workers, *shown, str(Recipe(**recipe | {"hidden": tuple(recipe["hidden"])}))
            )
        Console().print(table)


def _percent(accuracies: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.fmean(accuracies):.1f}{spread}"


if __name__ == "__main__":
    run(main, TuneOptions, __doc__ or "")
