"""Evaluations of a run: a curve over conditions, and a contact sheet of mistakes."""

import pathlib
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from experiments.figures import png

Line = Mapping[float, float]  # masking ratio or share of clouds -> accuracy


def plot_curve(lines: Mapping[str, Line], label: str, path: pathlib.Path) -> None:
    """Accuracy against a masking ratio or a share of clouds, a line for each training and kind.

    Args:
        lines: by the name of training and kind.
        label: what is on the horizontal axis.
        path: the PNG; replaced whole.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, line in lines.items():
        axes.plot(*zip(*sorted(line.items()), strict=True), marker="o", label=name)
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    png.write(figure, path)


def draw_sheet(images: Sequence[tuple[str, Image.Image]], path: pathlib.Path) -> None:
    """Images with a line of text below each, five in a row.

    Args:
        images: text and image, at least one.
        path: the PNG; replaced whole.
    """
    rows = -(-len(images) // 5)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    for axes in figure.subplots(rows, 5, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, (text, image) in zip(figure.axes, images, strict=False):
        axes.imshow(image)
        axes.set_title(text, fontsize=7, parse_math=False)
    png.write(figure, path)
