"""Networks, boxes, arrows and patches, drawn on axes whose unit is an inch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

WORKERS = ("#0072B2", "#E69F00", "#009E73")  # told apart by the colour-blind (Okabe and Ito)
INK, MUTED, FAINT, PAPER = "#1F2933", "#66707C", "#D5DAE0", "#F5F7F9"
RADIUS = 0.085


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches, and axes that cover it, without lines or numbers."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def text(
    axes: Axes, x: float, y: float, words: str, *, size: float = 10.5, **style: object
) -> None:
    """Words centred on a point; `style` is as of `matplotlib.axes.Axes.text`."""
    given = {"ha": "center", "va": "center", "color": INK, "linespacing": 1.3} | style
    axes.text(x, y, words, fontsize=size, **given)  # pyright: ignore[reportArgumentType]


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float = 0.0
) -> None:
    """An arrow between two points, curved by `bend` of its length."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            linewidth=1.5,
            color=MUTED,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def box(
    axes: Axes, x: float, y: float, width: float, height: float, *, edge: str, fill: str = "white"
) -> None:
    """A box with round corners, whose lower left corner is x, y."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.1",
            linewidth=1.5,
            edgecolor=edge,
            facecolor=fill,
        )
    )


def patches(
    axes: Axes,
    x: float,
    y: float,
    side: float,
    image: Float[np.ndarray, "pixels pixels 3"],
    grid: int,
    keep: Int[np.ndarray, " kept"],
) -> None:
    """A square image cut into grid x grid patches, of which those not kept are left blank."""
    pixels = len(image) // grid
    shown = np.ones_like(image) * 0.91
    for patch in keep:
        row, column = (pixels * i for i in divmod(int(patch), grid))
        there = np.s_[row : row + pixels, column : column + pixels]
        shown[there] = image[there]
    axes.imshow(shown, extent=(x, x + side, y, y + side), interpolation="nearest", zorder=1)
    axes.set_aspect("auto")
    if len(keep) < grid * grid:
        for i in range(1, grid):
            line = {"color": "white", "linewidth": 1.4, "zorder": 2}
            axes.plot([x, x + side], [y + side * i / grid] * 2, **line)
            axes.plot([x + side * i / grid] * 2, [y, y + side], **line)
    axes.add_patch(
        Rectangle((x, y), side, side, fill=False, edgecolor=MUTED, linewidth=1, zorder=3)
    )


def network(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    owners: Sequence[Sequence[int]],
    *,
    only: int | None = None,
    ends: tuple[int, int] = (4, 3),
) -> None:
    """A multi-layer perceptron from left to right, hidden neurons coloured by their worker.

    Args:
        axes: where to draw.
        x: left end.
        y: lower end.
        width: from the input to the output neurons.
        height: from the lowest to the highest neuron.
        owners: the worker of each neuron, for every hidden layer.
        only: draw the subnetwork of this worker alone.
        ends: how many neurons input and output show.
    """
    everybody = -1  # owns input and output
    layers = [[everybody] * ends[0], *map(list, owners), [everybody] * ends[1]]
    if only is not None:
        layers = [[worker for worker in layer if worker in (only, everybody)] for layer in layers]
    columns = np.linspace(x, x + width, len(layers))
    points = [
        [(column, y + height * (i + 0.5) / len(layer)) for i in reversed(range(len(layer)))]
        for column, layer in zip(columns, layers, strict=True)
    ]
    for before, after, there, here in zip(layers, layers[1:], points, points[1:], strict=False):
        for a, start in zip(before, there, strict=True):
            for b, end in zip(after, here, strict=True):
                worker = max(a, b)
                if everybody not in (a, b) and a != b:
                    style = {"color": FAINT, "lw": 0.6, "zorder": 1}  # nobody holds it
                else:
                    style = {"color": WORKERS[worker], "lw": 0.8, "zorder": 2}
                axes.plot(*zip(start, end, strict=True), **style)
    for layer, column in zip(layers, points, strict=True):
        for worker, point in zip(layer, column, strict=True):
            colour = MUTED if worker == everybody else WORKERS[worker]
            axes.add_patch(Circle(point, RADIUS, facecolor=colour, edgecolor="white", zorder=4))


def landscape(pixels: int = 64) -> Float[np.ndarray, "pixels pixels 3"]:
    """A sun over hills and a lake, each a formula: an image that is nobody's."""
    y, x = np.mgrid[0 : 1 : pixels * 1j, 0 : 1 : pixels * 1j]
    sky = np.stack([0.98 - 0.50 * (1 - y), 0.80 - 0.22 * (1 - y), 0.62 + 0.28 * (1 - y)], axis=-1)
    image = sky
    sun = (x - 0.68) ** 2 + (y - 0.27) ** 2 < 0.013
    image[sun] = (1.0, 0.93, 0.62)
    for level, height, pace, shift, colour in (
        (0.52, 0.10, 7.0, 0.4, (0.45, 0.53, 0.66)),
        (0.60, 0.07, 11.0, 2.0, (0.27, 0.43, 0.47)),
    ):
        hill = y > level - height * np.sin(pace * x + shift) * np.sin(2.1 * x + 0.3)
        image[hill] = colour
    lake = y > 0.76 + 0.015 * np.sin(9 * x)
    ripples = 0.06 * np.sin(70 * y + 9 * x)
    image[lake] = (np.array([0.36, 0.60, 0.74]) + ripples[..., None])[lake]
    return image.clip(0, 1)
