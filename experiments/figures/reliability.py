"""How true probabilities are, as a table and as a diagram of accuracy against confidence."""

import pathlib
from collections.abc import Mapping

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.figures import png
from experiments.runs.calibration import Truth

MEASURES = {"ece": "ECE", "nll": "log loss", "brier": "Brier"}


def print_truths(truths: Mapping[str, Truth]) -> None:
    """Prints three rows for each training: its logits as they are, and divided by two numbers."""
    table = Table(title="Probabilities of test examples", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("training", "logits", *MEASURES.values()):
        table.add_column(column, overflow="fold")
    for training, truth in truths.items():
        for name, found in truth.named.items():
            how = name
            if name == "calibrated":
                offset = "" if truth.offset is None else f", {truth.offset:+.3g}"
                how = f"divided by {truth.temperature:.3g}{offset}, fitted"
            metrics = found.metrics
            table.add_row(
                training if found is truth.raw else "",
                how,
                f"{metrics['ece']:.2%}",
                f"{metrics['nll']:.4f}",
                f"{metrics['brier']:.4f}",
            )
    Console().print(table)


def plot_reliability(truths: Mapping[str, Truth], path: pathlib.Path) -> None:
    """Accuracy against mean confidence in each bin: on the diagonal probabilities are true.

    Args:
        truths: of each training, a colour each; dashed before, solid after calibration.
        path: the PNG; replaced whole.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, (name, truth) in enumerate(truths.items()):
        for found, style in ((truth.raw, "--"), (truth.calibrated, "-")):
            if found is None:
                continue
            points = [(some["confidence"], some["accuracy"]) for some in found.bins]
            before = found is truth.raw and truth.calibrated is not None
            label = f"{name}{', uncalibrated' if before else ''}: ECE {found.ece:.1%}"
            colour = f"C{number % 10}"
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("probability of the predicted class, or of each of five labels")
    axes.set_ylabel("share of these predictions that is right")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    png.write(figure, path)
