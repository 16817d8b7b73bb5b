"""The whole system in one run: masked images, a frozen encoder, many small workers.

    python -m experiments.quickstart

Takes scikit-learn's 1,797 scanned digits, removes 0, 50 and 75 % of the patches of each, encodes
the rest as CLS vectors with a frozen encoder, and trains an MLP on them: centralised, and by
independent subnet training with 2 and 4 workers. Ends with a table, `accuracy.png` and a run
directory. Run again, it finds its work done. Expected on 2 CPU cores: two minutes. The accuracy,
centralised and with 2 workers, is about 99 % with all patches and 77 % with a quarter of them.
"""

import dataclasses
import pathlib

from experiments.command.cli import Options, run
from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.figures import plots, png
from experiments.figures.results import print_results
from experiments.runs.classification import run_plan
from experiments.runs.directory import read_json
from experiments.runs.plan import Plan, Training
from jist.models import shipped_encoders
from jist.models.shipped import locate

ENCODER = "mae-nano-cifar10"
RATIOS = (0.0, 0.5, 0.75)
STRATEGIES = (
    StrategyOptions(strategy="centralized", workers=1, local_steps=5),
    StrategyOptions(strategy="ist", workers=2, local_steps=5),
    StrategyOptions(strategy="ist", workers=4, local_steps=5),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Options):
    """Options of the quickstart; none is needed."""

    run_dir: pathlib.Path = pathlib.Path("runs/quickstart")
    """Where results are written; the same directory resumes where it stopped."""
    encoder: str = ENCODER
    """Name of a shipped encoder, directory of another, hf:OWNER/NAME[@REVISION] of the Hugging Face
    hub (converted once), or random-nano, -tiny, -small, -base."""
    epochs: int = 30
    """How often the examples are seen, by all workers together."""
    seed: int = 0
    """Decides split, masks, initialisation, partitions and order."""


def main(options: QuickstartOptions) -> None:
    """Encodes, trains and reports."""
    if options.encoder in shipped_encoders():
        source = read_json(locate(options.encoder) / "config.json")["source"]
        print(
            f"encoder {options.encoder}: {source['epochs']} epochs on {source['pretrained_on']}; "
            "no digit"
        )
    plan = Plan(
        experiment="quickstart",
        images=ImageOptions(dataset="digits", encoder=options.encoder, seed=options.seed),
        head=HeadOptions(epochs=options.epochs),
        trainings=tuple(
            Training(mask_ratio=ratio, how=how) for ratio in RATIOS for how in STRATEGIES
        ),
    )
    results = run_plan(plan, options.run_dir)
    print_results(results)
    png.write(plots.at_ratios(results), options.run_dir / "accuracy.png")
    print(f"written: {options.run_dir}/summary.json, {options.run_dir}/accuracy.png")


if __name__ == "__main__":
    run(main, QuickstartOptions, __doc__ or "")
