r"""A classifier head trained by many small workers on the CLS vectors of masked images.

    python -m experiments.distributed --dataset folder:data/cifar10 \
        --mask-ratio 0.75 --workers 4 --run-dir runs/cifar10-ist-4

    python -m experiments.launch -n 4 -- experiments.distributed --workers 4 ...

Kariotakis et al. (CPAL 2024), §3.1.2, Figure 7: IST with fixed masks and 1, 2 or 4 workers;
`--mask random` encodes the training images again for every epoch, in every process.
Writes a run directory; the same command with the same `--run-dir` resumes where it stopped, and
with more `--epochs` extends the run: no schedule depends on the last epoch.

`--strategy` selects a baseline in place of IST. The workers share the devices of one process or of
many: those that `experiments.launch` starts, those of a SLURM, Kubernetes or MPI job, or any
started with `--coordinator HOST:PORT --num-processes N --process-id I`. Run and feature directories
must then be on a file system that all processes share.

Expected for the first command, on 2 CPU cores and JPEG copies of CIFAR-10: three minutes.
"""

import dataclasses
import pathlib

import jax

from experiments.command import processes
from experiments.command.cli import Options, run
from experiments.command.options import (
    ExperimentOptions,
    HeadOptions,
    ImageOptions,
    ProcessOptions,
    StrategyOptions,
    pick,
)
from experiments.figures.results import print_results
from experiments.runs.classification import run_plan
from experiments.runs.plan import Plan, Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedOptions(Options, StrategyOptions, ExperimentOptions, ProcessOptions):
    """Options of distributed training."""

    workers: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Number of workers n: 4 by default, and 1 of --strategy centralized."""
    mask: str = "fixed"
    """Masks of the training images: fixed, or random, a new mask for every image and epoch."""
    run_dir: pathlib.Path = pathlib.Path("runs/distributed")
    """Where results are written; the same directory resumes where it stopped."""
    checkpoint_every: int | None = None
    """Rounds after which the state is saved within an epoch, too, so that a killed run loses no
    more than those; by default it is saved after every epoch."""
    devices: int | None = None
    """Devices that share the workers, a divisor of their number; by default the most there are."""

    def __post_init__(self) -> None:
        if self.workers is None:
            workers = 1 if self.strategy == "centralized" else StrategyOptions.workers
            object.__setattr__(self, "workers", workers)


def main(options: DistributedOptions) -> None:
    """Extracts, trains and reports."""
    processes.join(pick(options, ProcessOptions))
    plan = Plan(
        experiment="distributed",
        images=pick(options, ImageOptions),
        head=pick(options, HeadOptions),
        trainings=(
            Training(
                mask_ratio=options.ratio, mask=options.mask, how=pick(options, StrategyOptions)
            ),
        ),
    )
    results = run_plan(
        plan,
        options.run_dir,
        features_dir=options.features_dir,
        devices=options.devices,
        checkpoint_every=options.checkpoint_every,
    )
    if jax.process_index() == 0:
        print_results(results)


if __name__ == "__main__":
    run(main, DistributedOptions, __doc__ or "")
