r"""Every strategy on 1, 2, 4 and 8 workers, at equal examples in total and for each worker.

    python -m experiments.compare --dataset folder:data/cifar10 --mask-ratio 0.5 \
        --run-dir runs/compare

Yuan et al. (VLDB 2022), §5: accuracy against the number of sites, for independent subnet training,
data parallel training, local SGD and an ensemble of subnetworks; for DiLoCo; and for independent
subnet training without the standardisation of §2.2, which the paper says is necessary.

At equal examples in total, n workers share `--epochs` passes through the data; at equal examples
per worker, each makes that many passes itself. No schedule depends on the number of epochs, so one
training gives both: n workers train for n times `--epochs` epochs, and both accuracies are read
from the same curve. With `--worker-data sharded` each worker has examples of its own, with
`--alpha 0.3` another mix of classes; `--seeds 0 1 2` gives means and deviations. Ends with a table
and `comparison.png`; run again, it resumes where it stopped, and with more `--epochs` it extends
every training. Expected on 2 CPU cores and JPEG copies of CIFAR-10: 25 minutes with `--epochs 3`.
"""

import dataclasses
import pathlib
import statistics
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import (
    ExperimentOptions,
    HeadOptions,
    ImageOptions,
    RoundOptions,
    StrategyOptions,
    pick,
)
from experiments.figures import png
from experiments.figures.summaries import metric_of
from experiments.runs import heads
from experiments.runs.classification import run_plan
from experiments.runs.plan import Plan, Training
from experiments.runs.recipes import EACH, TOTAL
from experiments.runs.series import run_plans
from jist.metrics import read_metrics

STRATEGIES = ("ist", "data_parallel", "local_sgd", "diloco", "ensemble")
# Options that some strategies take; all of them can average.
OF_SOME = (*(of.name for of in dataclasses.fields(RoundOptions) if of.name != "ema_decay"),)
OF_SOME += ("partition",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(Options, RoundOptions, ExperimentOptions):
    """Options of the comparison."""

    run_dir: pathlib.Path = pathlib.Path("runs/compare")
    """Where results are written; the same directory resumes where it stopped."""
    epochs: int = 5
    """How often the examples are seen: by all workers together, and by each of them."""
    workers: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of workers n."""
    local_steps: int = 50
    """Steps J of every worker in a round."""
    strategies: tuple[str, ...] = STRATEGIES
    """What is compared. Options that only some of them take, such as --participation, are for
    those."""
    partition: str = "uniform"
    """How neurons are assigned: uniform or stratified (ist and ensemble), or rolling (ist)."""
    worker_data: str = "shared"
    """Examples of each of several workers: shared, every worker sees all; or sharded, each has its
    own."""
    alpha: float | None = None
    """Concentration of the Dirichlet distribution that skews sharded examples by label: the
    smaller, the more skewed. By default all workers have the same mix of classes."""
    seeds: tuple[int, ...] = ()
    """Seeds, in the place of --seed: each has a run directory of its own below --run-dir, and the
    table shows mean and deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds and self.seed != ImageOptions.seed:
            raise UsageError(f"--seed {self.seed} has no effect beside --seeds {self.seeds}")
        if self.alpha is not None and self.worker_data != "sharded":
            raise UsageError(
                f"--alpha {self.alpha:g} needs --worker-data sharded, got {self.worker_data}"
            )
        if self.worker_data != "shared" and max(self.workers, default=1) == 1:
            raise UsageError(
                f"--worker-data {self.worker_data} has no effect with --workers {self.workers}"
            )
        for name in self.strategies:
            if name not in STRATEGIES:
                raise UsageError(f"strategies must be some of {STRATEGIES}, got {name!r}")
        if self.norm == "scale" and self.strategies != STRATEGIES and "ensemble" in self.strategies:
            raise UsageError("--norm scale cannot be used with ensemble, whose parts stay apart")
        taken = {option for name in self.strategies for option in heads.STRATEGIES[name][1]}
        for name in OF_SOME:
            value = getattr(self, name)
            if name not in taken and value != getattr(CompareOptions, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} {value} has no effect on --strategies "
                    f"{' '.join(self.strategies)}"
                )

    def how(self, strategy: str, workers: int) -> StrategyOptions:
        """A strategy with those of the options that it takes."""
        _, takes = heads.STRATEGIES[strategy]
        taken = {name: getattr(self, name) for name in OF_SOME if name in takes}
        if strategy == "ist" and self.outer == "none":  # they are DiLoCo's
            taken = {name: of for name, of in taken.items() if not name.startswith("outer_")}
        if (strategy, self.partition) == ("ensemble", "rolling"):
            taken["partition"] = "uniform"  # that of an ensemble never moves
        if workers > 1:  # one has all examples
            taken |= {"worker_data": self.worker_data, "alpha": self.alpha}
        return StrategyOptions(
            strategy=strategy,
            workers=workers,
            local_steps=self.local_steps,
            ema_decay=self.ema_decay,
            **taken,
        )


def main(options: CompareOptions) -> None:
    """Trains every strategy on every number of workers, and reports."""
    if (options.norm, options.strategies) == ("scale", STRATEGIES):
        print("note: --norm scale leaves the ensemble out, whose parts stay apart")
    plan = make_plan(options)
    if options.seeds:
        plans = {
            f"seed-{seed}": dataclasses.replace(
                plan, images=dataclasses.replace(plan.images, seed=seed)
            )
            for seed in options.seeds
        }
        every = run_plans(plans, options.run_dir, features_dir=options.features_dir)
        results = [result for result in every if result["directory"] in plans]
    else:
        results = run_plan(plan, options.run_dir, features_dir=options.features_dir)
    lines = accuracies(results, options.run_dir, options.epochs)
    metric = metric_of(results[0]).replace("_", " ")
    print_accuracies(lines, metric)
    plot_accuracies(lines, metric, options.run_dir / "comparison.png")
    print(f"written: {options.run_dir}/summary.json, {options.run_dir}/comparison.png")


def make_plan(options: CompareOptions) -> Plan:
    """All trainings; those on few workers, which are short, come first."""
    trainings = []
    for workers in sorted(set(options.workers)):
        # An ensemble is evaluated as separate subnetworks, which cannot be scaled up.
        able = [
            name for name in options.strategies if (name, options.norm) != ("ensemble", "scale")
        ]
        methods: list[tuple[str, str | None]] = [(strategy, None) for strategy in able]
        if options.norm != "none" and "ist" in able:
            methods.insert(able.index("ist") + 1, ("ist", "none"))
        if workers == 1:
            methods.append(("centralized", None))
        trainings += [
            Training(
                mask_ratio=options.ratio,
                how=options.how(strategy, workers),
                each=workers > 1,
                norm=norm,
            )
            for strategy, norm in methods
        ]
    return Plan(
        experiment="compare",
        images=pick(options, ImageOptions),
        head=pick(options, HeadOptions),
        trainings=tuple(trainings),
    )


Lines = dict[str, dict[str, dict[int, tuple[float, ...]]]]


def accuracies(results: list[dict[str, Any]], run_dir: pathlib.Path, epochs: int) -> Lines:
    """Test accuracies at the two points of comparison, from the curves of a run.

    Args:
        results: the results of the run.
        run_dir: its directory, or the one above those of several seeds.
        epochs: the passes to compare at: of all workers together, and of each.

    Returns:
        Comparison -> training method -> number of workers -> test accuracy, or the metric that
        stands in its place, of every seed.
    """
    metric = f"test_{metric_of(results[0])}"
    directories = dict.fromkeys(result.get("directory", "") for result in results)
    curves = {
        (directory, r["run"], r["epoch"]): r[metric]
        for directory in directories
        for r in read_metrics(run_dir / directory)
    }
    lines: Lines = {TOTAL: {}, EACH: {}}
    for result in results:
        workers, method = result["workers"], result["strategy"]
        if result["norm"] == "none":
            method += ", no norm"
        for comparison, epoch in ((TOTAL, epochs), (EACH, workers * epochs)):
            line = lines[comparison].setdefault(method, {})
            found = curves[result.get("directory", ""), result["run"], epoch]
            line[workers] = (*line.get(workers, ()), found)
    return lines


def print_accuracies(lines: Lines, metric: str) -> None:
    """Prints a table for each comparison: a row per training method, a column per workers."""
    for comparison, methods in lines.items():
        numbers = sorted({workers for line in methods.values() for workers in line})
        table = Table(title=f"Test {metric}, {comparison}", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("workers", no_wrap=True)
        for workers in numbers:
            table.add_column(str(workers), justify="right", no_wrap=True)
        for method, line in methods.items():
            table.add_row(method, *(percent(line[n]) if n in line else "" for n in numbers))
        Console().print(table)


def percent(values: tuple[float, ...]) -> str:
    """The mean of some shares and, if there are several, their deviation."""
    if len(values) == 1:
        return f"{values[0]:.1%}"
    return f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values):.1f} %"


def plot_accuracies(lines: Lines, metric: str, path: pathlib.Path) -> None:
    """The metric against the number of workers, one panel for each comparison.

    Args:
        lines: the accuracies.
        metric: what they are.
        path: the PNG; replaced whole.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(lines), sharey=True)
    for axes, (comparison, methods) in zip(panels, lines.items(), strict=True):
        for method, line in methods.items():
            style = {"linestyle": "--"} if method.endswith("no norm") else {}
            means = [statistics.fmean(values) for values in line.values()]
            (drawn,) = axes.plot([*line], means, marker="o", label=method, **style)
            if all(len(values) > 1 for values in line.values()):
                spread = [statistics.stdev(values) for values in line.values()]
                axes.errorbar([*line], means, spread, fmt="none", ecolor=drawn.get_color())
        axes.set_xscale("log", base=2)
        numbers = sorted({workers for line in methods.values() for workers in line})
        axes.set_xticks(numbers, [str(n) for n in numbers])
        axes.set_xlabel("workers")
        axes.set_title(comparison)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"test {metric}")
    panels[0].legend()
    png.write(figure, path)


if __name__ == "__main__":
    run(main, CompareOptions, __doc__ or "")
