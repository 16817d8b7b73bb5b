"""Draws what jist does: images to classes, and one round of independent subnet training.

    python -m experiments.overview

Writes the two pictures of the README, `overview.png` and `ist-round.png`, beside the modules that
draw. Expected on 2 CPU cores: 5 seconds.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import figures
from experiments.command.cli import Options, run
from experiments.figures import png
from experiments.figures.drawing import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    WORKERS,
    arrow,
    box,
    canvas,
    landscape,
    network,
    patches,
    text,
)
from jist.masking import FixedMask

GRID = 8
NOW = ((0, 1, 2, 0, 2, 1), (1, 0, 0, 2, 1, 2))  # the worker of each neuron of two hidden layers
MIDDLE, SIDE = 1.68, 1.5  # of what the pipeline shows, in inches
NEXT = ((2, 0, 1, 1, 0, 2), (0, 2, 1, 0, 2, 1))  # and of the round after


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverviewOptions(Options):
    """Options of the pictures; none is needed."""

    out: pathlib.Path = pathlib.Path(figures.__file__).parent
    """Directory that takes them."""


def main(options: OverviewOptions) -> None:
    """Draws both."""
    for name, figure in (("overview", overview()), ("ist-round", ist_round())):
        path = options.out / f"{name}.png"
        png.write(figure, path, dpi=170)
        print(f"written: {path}")


def overview() -> Figure:
    """Image, patches, encoder, CLS vector, subnetworks on workers, class."""
    figure, axes = canvas(11, 3.5)
    image, middle, side = landscape(), MIDDLE, SIDE
    keep = np.asarray(FixedMask(GRID * GRID, ratio=0.75, seed=7)(jnp.arange(1, dtype=jnp.uint32)))
    everything, low = np.arange(GRID * GRID), middle - side / 2
    for x, kept, title, below in (
        (0.25, everything, "image", "any size"),
        (2.2, keep[0], "visible patches", "0 to 90 % missing"),
    ):
        patches(axes, x, low, side, image, GRID, kept)
        _label(axes, x + side / 2, title, below)
    arrow(axes, (1.83, middle), (2.12, middle))
    arrow(axes, (3.78, middle), (4.07, middle))

    box(axes, 4.15, low, 1.3, side, edge=INK, fill=PAPER)
    text(axes, 4.8, middle, "Vision\nTransformer")
    _label(axes, 4.8, "frozen encoder", "masked autoencoder")
    arrow(axes, (5.53, middle), (5.82, middle))

    _vector(axes, 5.92, low, 0.24, side)
    _label(axes, 6.04, "CLS", "vector")

    for worker, colour in enumerate(WORKERS):
        bottom = MIDDLE + 0.57 - 1.0 * worker
        box(axes, 6.95, bottom, 2.35, 0.86, edge=colour)
        network(axes, 8.0, bottom + 0.06, 1.1, 0.74, NOW, only=worker, ends=(3, 3))
        text(
            axes, 7.4, bottom + 0.43, f"worker {worker + 1}", color=colour, weight="bold", size=9.5
        )
        arrow(axes, (6.26, middle), (6.87, bottom + 0.43))
        arrow(axes, (9.38, bottom + 0.43), (9.75, middle + 0.25 * (1 - worker)))
    text(axes, 8.12, 3.22, "subnetworks of an MLP", weight="bold", va="baseline")

    _label(axes, 10.36, "class", "by the full\nnetwork")
    for i, (name, share) in enumerate((("lake", 0.84), ("forest", 0.11), ("airport", 0.05))):
        y = middle + 0.4 - 0.4 * i
        axes.add_patch(Rectangle((9.88, y - 0.17), 0.95, 0.3, color=PAPER, zorder=1))
        axes.add_patch(Rectangle((9.88, y - 0.17), 0.95 * share, 0.3, color=FAINT, zorder=2))
        text(axes, 9.95, y - 0.02, name, ha="left", size=9.5, zorder=3)
    return figure


def ist_round() -> Figure:
    """Partition, local steps, exchange, and the partition of the round that follows."""
    figure, axes = canvas(11, 3.4)
    low, height, width = 0.85, 2.0, 1.75
    panels = (
        (0.3, "1  partition", "every hidden neuron goes\nto one worker, at random"),
        (3.05, "2  local training", "J steps each; nothing\nis sent meanwhile"),
        (6.35, "3  exchange", "the trained pieces make\nthe full network again"),
        (8.95, "4  next round", "another partition,\nother subnetworks"),
    )
    wide = {1: 2.45}
    for i, (x, title, below) in enumerate(panels):
        centre = x + wide.get(i, width) / 2
        text(axes, centre, 3.1, title, weight="bold", size=11, va="baseline")
        text(axes, centre, 0.66, below, color=MUTED, size=9.5, va="top")
    network(axes, 0.3, low, width, height, NOW)
    arrow(axes, (2.3, low + height / 2), (2.85, low + height / 2))
    for worker, colour in enumerate(WORKERS):
        bottom = low + height - 0.68 * (worker + 1) + 0.04
        box(axes, 3.05, bottom, 2.45, 0.6, edge=colour)
        network(axes, 4.2, bottom + 0.02, 1.1, 0.56, NOW, only=worker, ends=(2, 2))
        text(
            axes, 3.57, bottom + 0.3, f"worker {worker + 1}", color=colour, weight="bold", size=9.5
        )
    arrow(axes, (5.7, low + height / 2), (6.15, low + height / 2))
    network(axes, 6.35, low, width, height, NOW)
    arrow(axes, (8.3, low + height / 2), (8.75, low + height / 2))
    network(axes, 8.95, low, width, height, NEXT)
    return figure


def _label(axes: Axes, x: float, title: str, below: str) -> None:
    """What stands above and below a part of the pipeline."""
    text(axes, x, MIDDLE + SIDE / 2 + 0.22, title, weight="bold", va="baseline")
    text(axes, x, MIDDLE - SIDE / 2 - 0.15, below, color=MUTED, size=9.5, va="top")


def _worker(axes: Axes, x: float, y: float, worker: int) -> None:
    """The name of a worker, in its colour."""
    text(axes, x, y, f"worker {worker + 1}", color=WORKERS[worker], weight="bold", size=9.5)


def _vector(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    """A column of numbers, as shades of grey."""
    shades = np.random.default_rng(1).uniform(0.35, 0.95, 12)
    for i, shade in enumerate(shades):
        cell = (x, y + height * i / len(shades))
        axes.add_patch(
            Rectangle(cell, width, height / len(shades), facecolor=str(shade), edgecolor="white")
        )


if __name__ == "__main__":
    run(main, OverviewOptions, __doc__ or "")
