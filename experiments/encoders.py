r"""Features of several frozen encoders compared on unmasked images.

    python -m conversion mae_pretrain_vit_base.pth encoders/mae-base
    python -m conversion resnet50.pth encoders/resnet50
    python -m experiments.encoders --dataset folder:data/cifar10 \
        --encoders encoders/mae-base encoders/resnet50 --run-dir runs/encoders

Kariotakis et al. (CPAL 2024), Figure 3: a masked autoencoder's ViT-Base against ResNet-50 v1.5,
both pre-trained on ImageNet-1k, as feature extractors for the same head on CIFAR-10 without masks;
the paper has the ViT ahead by almost 25 % in accuracy. An encoder is a directory that `python -m
conversion` or `jist.models` wrote, of either kind. Each has a run directory of its own below
`--run-dir`, whose `summary.json` holds all results; ends with a table and `figure-3.png`. Run
again, it resumes where it stopped.

ResNet-50 takes 224 × 224 pixels and 8 GFLOPs an image. Expected: many hours for 60,000 images on 2
CPU cores; with a GPU it has not been measured.
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
from experiments.figures import plots, png
from experiments.figures.summaries import Cell
from experiments.runs.plan import Plan, Training
from experiments.runs.series import run_plans


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodersOptions(Options, ExperimentOptions):
    """Options of the comparison of encoders."""

    encoders: tuple[str, ...]
    """Shipped encoders, directories of masked autoencoders or of a ResNet-50, hf:OWNER/NAME, or
    random-nano, …"""
    run_dir: pathlib.Path = pathlib.Path("runs/encoders")
    """Where results are written; the same directory resumes where it stopped."""
    encoder: tyro.conf.Suppress[str] = ""
    mask_ratio: tyro.conf.Suppress[float | None] = None


def main(options: EncodersOptions) -> None:
    """Extracts, trains and compares."""
    wanted = plans(options)
    found = run_plans(wanted, options.run_dir, features_dir=options.features_dir)
    cells = {r["directory"]: Cell((r,)) for r in found if r["directory"] in wanted}
    table = Table(title="Test images without masks: accuracy in %", box=box.SIMPLE_HEAD)
    table.add_column("encoder")
    for column in ("features", "best", "last"):
        table.add_column(column, justify="right")
    for name, cell in cells.items():
        accuracies = (cell.percent(f"{which}_test_accuracy") for which in ("best", "last"))
        table.add_row(name, str(cell.results[0]["feature_dim"]), *accuracies)
    Console().print(table)
    path = options.run_dir / "figure-3.png"
    png.write(plots.encoders(f"{options.dataset}, no masks", cells), path)
    print(f"written: {options.run_dir}/summary.json, {path}")


def plans(options: EncodersOptions) -> dict[str, Plan]:
    """One plan for each encoder, called by the last part of its path.

    Raises:
        ValueError: two encoders have the same name, or the images come with masks.
    """
    images = pick(options, ImageOptions)
    if images.natural:
        raise UsageError(
            "encoders are compared on unmasked images, without --natural-masks, --no-data, "
            f"--simulate-clouds and masked: data sets; got dataset={images.dataset}, "
            f"natural_masks={images.natural_masks}, no_data={images.no_data}, "
            f"simulate_clouds={images.simulate_clouds}"
        )
    central = StrategyOptions(strategy="centralized", workers=1)
    found = {
        pathlib.PurePath(encoder).name: Plan(
            experiment="encoders",
            images=dataclasses.replace(images, encoder=encoder),
            head=pick(options, HeadOptions),
            trainings=(Training(mask_ratio=0.0, how=central),),
        )
        for encoder in options.encoders
    }
    if len(found) < len(options.encoders):
        raise UsageError(f"encoders must have names of their own, got {options.encoders}")
    return found


if __name__ == "__main__":
    run(main, EncodersOptions, __doc__ or "")
