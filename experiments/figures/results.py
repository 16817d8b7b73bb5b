"""Results as a table and as a plot."""

import pathlib
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.figures import png


def plot_accuracy(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Test accuracy against masking ratio, one line for each way of training.

    Args:
        results: the results of a run (`summary.json`).
        path: the PNG; replaced whole.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for strategy, workers in dict.fromkeys((r["strategy"], r["workers"]) for r in results):
        line = sorted(
            (r["ratio"], r["last_test_accuracy"])
            for r in results
            if (r["strategy"], r["workers"]) == (strategy, workers)
        )
        label = strategy if strategy == "centralized" else f"{strategy}, {workers} workers"
        axes.plot(*zip(*line, strict=True), marker="o", label=label)
    axes.set_xlabel("masking ratio (share of patches removed)")
    axes.set_ylabel("test accuracy, last epoch")
    axes.grid(alpha=0.3)
    axes.legend()
    png.write(figure, path)


def print_results(results: list[dict[str, Any]]) -> None:
    """Prints one row per training: accuracy, size and traffic."""
    table = Table(
        title="Test images: accuracy, and what each worker needs for it",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("patches\nremoved", "workers"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("training", no_wrap=True)
    for column in (
        "accuracy\nlast",
        "accuracy\nbest",
        "parameters\nper worker",
        "received\n(MB)",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            f"{result['ratio']:.0%}",
            str(result["workers"]),
            result["strategy"],
            f"{result['last_test_accuracy']:.1%}",
            f"{result['best_test_accuracy']:.1%}",
            f"{result['parameters_per_worker']:,}",
            f"{result['bytes_received_per_worker'] / 1e6:,.1f}",
        )
    Console().print(table)
