r"""Every masking ratio, mask, number of workers and seed, for one data set.

    python -m experiments.sweep --dataset folder:data/cifar10 \
        --ratios 0 0.5 0.75 --seeds 0 1 2 --run-dir runs/cifar10-sweep
    python -m experiments.sweep --dataset aid --data-dir data/AID --run-dir runs/aid-sweep

Kariotakis et al. (CPAL 2024), Table 4 and Figures 4 and 7: centralised training with fixed and with
random masks, and IST with fixed masks on 1, 2 and 4 workers; as in the paper, only centralised
training sees random masks. `--strategies` adds others beside IST. Each seed is a run directory of
its own below `--run-dir`, whose `summary.json` holds all results. Killed at any moment, the same
command resumes with the epoch at which it stopped; a command with further ratios, masks,
strategies, workers or seeds adds those, and one with more `--epochs` extends all trainings.
Masks are drawn per seed; features are shared by all trainings of a ratio and a seed.

Expected on 2 CPU cores, 50,000 + 10,000 images of 32 pixels and 30 epochs: about two minutes for
each training with fixed masks; one with random masks encodes all images 30 times.
"""

import dataclasses
import pathlib

import tyro
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
from experiments.figures import paper
from experiments.figures.summaries import Study, by_study, metric_of
from experiments.figures.summaries import Table as Cells
from experiments.runs.heads import STRATEGIES
from experiments.runs.plan import MASKS, Plan, Training
from experiments.runs.series import run_plans


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(Options, ExperimentOptions):
    """Options of the sweep."""

    run_dir: pathlib.Path = pathlib.Path("runs/sweep")
    """Where results are written; the same directory resumes where it stopped, or grows."""
    ratios: tuple[float, ...] = paper.RATIOS
    """Masking ratios."""
    masks: tuple[str, ...] = MASKS
    """Masks of centralised training: fixed, random."""
    workers: tuple[int, ...] = (1, 2, 4)
    """Numbers of workers of the strategies."""
    strategies: tuple[str, ...] = ("ist",)
    """Strategies of these workers, with fixed masks: ist, data_parallel, local_sgd, diloco,
    ensemble."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each decides split, masks, initialisation, partitions and order."""
    local_steps: int = 50
    """Steps J of every worker in a round."""
    mask_ratio: tyro.conf.Suppress[float | None] = None
    seed: tyro.conf.Suppress[int] = 0


def main(options: SweepOptions) -> None:
    """Runs every training that has no result yet, and reports."""
    results = run_plans(plans(options), options.run_dir, features_dir=options.features_dir)
    for study, cells in by_study(results).items():
        print_cells(study, cells)
    print(f"written: {options.run_dir}/summary.json")


def plans(options: SweepOptions) -> dict[str, Plan]:
    """One plan for each seed, with all ratios and training methods.

    Raises:
        ValueError: an unknown mask or strategy.
    """
    for name in options.strategies:
        if name not in STRATEGIES or name == "centralized":
            allowed = tuple(sorted({*STRATEGIES} - {"centralized"}))
            raise UsageError(f"strategies must be some of {allowed}, got {name!r}")
    central = StrategyOptions(strategy="centralized", workers=1, local_steps=options.local_steps)
    trainings = tuple(
        training
        for ratio in options.ratios
        for training in (
            *(Training(mask_ratio=ratio, how=central, mask=mask) for mask in options.masks),
            *(
                Training(
                    mask_ratio=ratio,
                    how=StrategyOptions(
                        strategy=strategy, workers=workers, local_steps=options.local_steps
                    ),
                )
                for strategy in options.strategies
                for workers in options.workers
            ),
        )
    )
    return {
        f"seed-{seed}": Plan(
            experiment="sweep",
            images=dataclasses.replace(pick(options, ImageOptions), seed=seed),
            head=pick(options, HeadOptions),
            trainings=trainings,
        )
        for seed in options.seeds
    }


def print_cells(study: Study, cells: Cells) -> None:
    """Prints the best test accuracy, or the task's own metric, of every method at every ratio."""
    first = next(cell for line in cells.values() for cell in line.values())
    metric = metric_of(first.results[0])
    title = f"{study}: best test {metric.replace('_', ' ')} in %"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("patches\nremoved", justify="right")
    for method in cells:
        table.add_column(str(method).replace(", ", "\n"), justify="right", no_wrap=True)
    for ratio in sorted({ratio for line in cells.values() for ratio in line}):
        percent = [
            line[ratio].percent(f"best_test_{metric}") if ratio in line else ""
            for line in cells.values()
        ]
        table.add_row(f"{ratio:.0%}", *percent)
    Console().print(table)


if __name__ == "__main__":
    run(main, SweepOptions, __doc__ or "")
