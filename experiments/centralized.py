r"""A classifier head trained by one worker on the CLS vectors of masked images.

    python -m experiments.centralized --dataset folder:data/cifar10 \
        --mask-ratio 0.75 --run-dir runs/cifar10-centralized

Kariotakis et al. (CPAL 2024), §3.1.1, Figure 4. Writes a run directory; the same command with the
same `--run-dir` resumes where it stopped, and with more `--epochs` extends the run: no schedule
depends on the last epoch. Expected on 2 CPU cores and JPEG copies of CIFAR-10: five
minutes.

With `--mask random` every training image gets a new mask in every epoch, so each epoch encodes all
of them again; test images keep their fixed masks, so that both can be compared. A run directory
holds one training: give each its own.
"""

import dataclasses
import pathlib

from experiments.command.cli import Options, run
from experiments.command.options import (
    ExperimentOptions,
    HeadOptions,
    ImageOptions,
    StrategyOptions,
    pick,
)
from experiments.figures.results import print_results
from experiments.runs.classification import run_plan
from experiments.runs.plan import Plan, Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralizedOptions(Options, ExperimentOptions):
    """Options of centralised training."""

    mask: str = "fixed"
    """Masks of the training images: fixed, or random, a new mask for every image and epoch."""
    ema_decay: float | None = None
    """Decay per round of 50 steps, in (0, 1), of a moving average of the parameters, which is then
    what is tested and kept; by default the last ones are."""
    run_dir: pathlib.Path = pathlib.Path("runs/centralized")
    """Where results are written; the same directory resumes where it stopped."""
    checkpoint_every: int | None = None
    """Rounds of 50 steps after which the state is saved within an epoch, too, so that a killed run
    loses no more than those; by default it is saved after every epoch."""


def main(options: CentralizedOptions) -> None:
    """Extracts, trains and reports."""
    plan = Plan(
        experiment="centralized",
        images=pick(options, ImageOptions),
        head=pick(options, HeadOptions),
        trainings=(
            Training(
                mask_ratio=options.ratio,
                mask=options.mask,
                how=StrategyOptions(strategy="centralized", workers=1, ema_decay=options.ema_decay),
            ),
        ),
    )
    results = run_plan(
        plan,
        options.run_dir,
        features_dir=options.features_dir,
        checkpoint_every=options.checkpoint_every,
    )
    print_results(results)


if __name__ == "__main__":
    run(main, CentralizedOptions, __doc__ or "")
