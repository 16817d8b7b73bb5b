"""A map of classes as a picture with a legend, and the colours of classes."""

import pathlib

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.figures import png
from experiments.runs.scene_maps import SceneMap

NOTHING = (0.85, 0.85, 0.85)
WIDEST = 2000  # cells of a picture; of a larger map every few are drawn


def colours_of(classes: int) -> list[tuple[float, float, float]]:
    """A colour for each class, RGB in [0, 1]; of more than twenty they are spread over a circle."""
    palette = colormaps["tab10" if classes <= 10 else "tab20" if classes <= 20 else "hsv"]
    places = range(classes) if classes <= 20 else np.arange(classes) / classes
    return [(red, green, blue) for red, green, blue, _ in map(palette, places)]


def draw_map(found: SceneMap, class_names: list[str], out: pathlib.Path, title: str) -> None:
    """The classes beside their probabilities, with a legend of the classes that are there."""
    every = -(-max(found.classes.shape) // WIDEST)
    classes, probability = found.classes[::every, ::every], found.probability[::every, ::every]
    colours = colours_of(len(class_names))
    tall = classes.shape[0] / classes.shape[1]
    figure = Figure(figsize=(11, min(max(4.5 * tall, 2), 20) + 1), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = np.where(classes < 0, len(colours), classes)
    palette = ListedColormap([*colours, NOTHING])
    left.imshow(shown, cmap=palette, vmin=-0.5, vmax=len(colours) + 0.5, interpolation="nearest")
    left.set_title(title)
    there = [label for label in range(len(class_names)) if (found.classes == label).any()]
    handles = [Patch(color=colours[label], label=class_names[label]) for label in there]
    if (found.classes < 0).any():
        handles.append(Patch(color=NOTHING, label="nothing visible"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, max(1, len(handles))))
    right.set_facecolor(NOTHING)
    drawn = right.imshow(probability, vmin=0, vmax=1, interpolation="nearest")
    right.set_title("probability")
    figure.colorbar(drawn, ax=right, shrink=0.8)
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    png.write(figure, out)
