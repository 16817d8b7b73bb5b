"""Figure 2, accuracy against seconds, and the map of where IST is faster."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from experiments.network.cells import times
from experiments.network.links import FRAME, PAYLOAD, UNSHAPED
from experiments.network.report import name_of
from jist.durations import ist_speed_up

COLOURS = {
    "data_parallel": "tab:blue",
    "local_sgd": "tab:orange",
    "diloco": "tab:red",
    "ist": "tab:green",
    "ensemble": "tab:grey",
}
NODES = (2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)
RATES = tuple(np.logspace(7, np.log10(4e11), 24))  # bits a second


def figure_2(
    cells: Sequence[dict[str, Any]], curves: dict[str, Any], targets: Sequence[float]
) -> Figure:
    """Test accuracy against seconds: a column for each number of nodes, a line for each link."""
    shaped = [cell for cell in cells if cell["bandwidth"] != UNSHAPED]
    nodes = sorted({cell["nodes"] for cell in shaped})
    links = list(dict.fromkeys(cell["bandwidth"] for cell in shaped))
    figure = Figure(figsize=(4 * len(nodes) + 1, 3 * len(links) + 0.6), layout="constrained")
    panels = figure.subplots(len(links), len(nodes), squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for cell in shaped:
        axes = panels[links.index(cell["bandwidth"]), nodes.index(cell["nodes"])]
        curve = curves[f"{cell['strategy']}-{cell['nodes']}"]
        accuracies = [100 * accuracy for accuracy in curve["accuracies"]]
        (line,) = axes.plot(
            times(cell, len(accuracies)),
            accuracies,
            color=COLOURS[cell["strategy"]],
            linestyle="-" if cell["variant"] == "jist" else ":",
        )
        handles.setdefault(name_of(cell), line)
    for row, link in enumerate(links):
        for column, number in enumerate(nodes):
            axes = panels[row, column]
            axes.set_title(f"{number} nodes, {link}", fontsize=10)
            axes.set_xscale("log")
            axes.grid(alpha=0.3)
            for target in targets:
                axes.axhline(100 * target, color="black", linewidth=0.5, linestyle="--")
            if row == len(links) - 1:
                axes.set_xlabel("seconds, undilated")
            if not column:
                axes.set_ylabel("test accuracy in %")
    figure.legend([*handles.values()], [*handles], loc="outside right upper", fontsize=9)
    return figure


def speed_up_map(
    widths: Sequence[int],
    local_steps: int,
    batch: int,
    line: tuple[float, float],
    delay: float,
    ratios: dict[int, float],
) -> tuple[Figure, list[list[float]]]:
    """How many times faster IST reaches an accuracy than data parallel training, extrapolated.

    Args:
        widths: of the network.
        local_steps: steps J of a round.
        batch: examples in a worker's batch.
        line: seconds of a step without operations, and of an operation.
        delay: of a message, in seconds.
        ratios: number of nodes -> how many times IST's steps data parallel training needs; between
            them interpolated, beyond as at the nearest; nothing if steps are compared one by one.

    Returns:
        The figure, and the speed-ups [nodes, rates].
    """
    known = sorted(ratios) or [1]
    of = np.interp(np.log(NODES), np.log(known), [ratios.get(nodes, 1.0) for nodes in known])
    found = [
        [
            float(ratio)
            * ist_speed_up(
                widths,
                nodes,
                local_steps,
                batch,
                rate * PAYLOAD / FRAME,
                at_zero=line[0],
                per_flop=line[1],
                delay=delay,
            )
            for rate in RATES
        ]
        for nodes, ratio in zip(NODES, of, strict=True)
    ]
    logs = np.log10(found)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    limits = TwoSlopeNorm(0, vmin=min(-0.3, logs.min()), vmax=max(0.3, logs.max()))
    mesh = axes.pcolormesh(RATES, NODES, logs, cmap="RdYlGn", norm=limits, shading="nearest")
    powers = [1, 2, 5, 10, 20, 50, 100, 200, 1000]
    lines = axes.contour(RATES, NODES, found, levels=powers, colors="black", linewidths=0.8)
    axes.clabel(lines, fmt=lambda level: f"{level:g} ×", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        [1e7, 1e8, 1e9, 1e10, 1e11, 4e11], ["10 M", "100 M", "1 G", "10 G", "100 G", "400 G"]
    )
    axes.set_yticks([2, 8, 32, 125, 1000], ["2", "8", "32", "125", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("rate of each link, bit/s")
    axes.set_ylabel("nodes")
    axes.set_title(
        f"{'-'.join(map(str, widths))}, batch {batch}, J = {local_steps}: "
        "seconds of data parallel training over those of IST",
        fontsize=10,
    )
    figure.colorbar(mesh, label="log10 of the speed-up")
    return figure, found
