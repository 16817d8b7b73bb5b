"""The paper's figures, measured values beside the printed ones where there are any."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures.paper import RATIOS, PaperDataset
from experiments.figures.sizes import SizeRow
from experiments.figures.summaries import Cell, Method, Table, metric_of

PAPER: dict[str, Any] = {"color": "black", "linestyle": "--", "marker": "s", "fillstyle": "none"}
COLOURS = {
    Method("centralized", 1, "fixed"): "tab:blue",
    Method("centralized", 1, "random"): "tab:orange",
    Method("ist", 1, "fixed"): "tab:green",
    Method("ist", 2, "fixed"): "tab:red",
    Method("ist", 4, "fixed"): "tab:purple",
}
PATCHES_REMOVED = "masking ratio (share of patches removed)"
BEST = "best test accuracy in %"


def accuracy(
    title: str, table: Table, methods: Sequence[Method], known: PaperDataset | None
) -> Figure:
    """Best test accuracy against masking ratio; Table 4's, which is centralised, beside it.

    Args:
        title: the title of the figure.
        table: the results.
        methods: which lines of it to draw; bars span a deviation over the seeds to each side.
        known: the paper's data set, if this is one.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        ratios, cells = [*table[method]], [*table[method].values()]
        axes.errorbar(
            ratios,
            [100 * cell.mean("best_test_accuracy") for cell in cells],
            yerr=[100 * (cell.deviation("best_test_accuracy") or 0) for cell in cells],
            marker="o",
            capsize=3,
            color=COLOURS.get(method),
            label=str(method),
        )
    if known is not None:
        axes.plot(RATIOS, [100 * a for a in known.accuracy], label="paper, centralised", **PAPER)
    _finish(axes, title, PATCHES_REMOVED, BEST)
    _legend_outside(figure)
    return figure


def at_ratios(results: list[dict[str, Any]]) -> Figure:
    """What results are chosen by, test accuracy say, against masking ratio; a line for each way.

    Args:
        results: the results of a run (`summary.json`), all of one task.
    """
    metric = metric_of(results[0])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for strategy, workers in dict.fromkeys((r["strategy"], r["workers"]) for r in results):
        line = sorted(
            (r["ratio"], r[f"last_test_{metric}"])
            for r in results
            if (r["strategy"], r["workers"]) == (strategy, workers)
        )
        label = strategy if strategy == "centralized" else f"{strategy}, {workers} workers"
        axes.plot(*zip(*line, strict=True), marker="o", label=label)
    axes.set_xlabel("masking ratio (share of patches removed)")
    axes.set_ylabel(f"test {metric}, last epoch")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def curves(title: str, table: Table, methods: Sequence[Method]) -> Figure:
    """Test accuracy after every epoch, a panel for each method and a line for each ratio.

    Lines are means over the seeds.
    """
    figure = Figure(figsize=(3.6 * len(methods) + 1.4, 4), layout="constrained")
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    ratios = sorted({ratio for method in methods for ratio in table[method]})
    colours = matplotlib.colormaps["viridis"].resampled(len(ratios) + 1)
    for axes, method in zip(panels, methods, strict=True):
        for ratio, cell in table[method].items():
            line = _mean_curve(cell)
            colour = colours(ratios.index(ratio))
            label = f"ratio {ratio:g}"
            axes.plot(range(1, len(line) + 1), line, color=colour, label=label, **_dot(line))
        _finish(axes, str(method), "epoch", "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("test accuracy in %")
    figure.suptitle(title)
    _legend_outside(figure)
    return figure


def encoders(title: str, cells: dict[str, Cell]) -> Figure:
    """Figure 3: test accuracy after every epoch on the features of several encoders."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, cell in cells.items():
        line = _mean_curve(cell)
        axes.plot(range(1, len(line) + 1), line, label=name, **_dot(line))
    _finish(axes, title, "epoch", "test accuracy in %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_outside(figure)
    return figure


def sizes(title: str, rows: Sequence[SizeRow], known: PaperDataset | None) -> Figure:
    """Figure 5: size of the data set against masking ratio."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    ratios = [row.ratio for row in rows]
    lines = {
        "masked images, paper's formula": [row.formula_bytes for row in rows],
        "masked images, true bytes": [row.true_bytes for row in rows],
        "CLS vectors, both": [row.cls_bytes for row in rows],
    }
    for label, values in lines.items():
        axes.plot(ratios, [value / 1e6 for value in values], marker="o", label=label)
    if known is not None and rows[0].examples == known.train:
        printed = [1e3 * float(gigabytes) for gigabytes in known.masked_gigabytes]
        axes.plot(RATIOS, printed, label="paper, masked images", **PAPER)
    axes.set_ylim(bottom=0)
    _finish(axes, title, PATCHES_REMOVED, "size of the training set in MB")
    _legend_outside(figure)
    return figure


def accuracy_against_size(
    title: str, rows: Sequence[SizeRow], known: PaperDataset | None
) -> Figure:
    """Figure 6: best test accuracy against size by the paper's formula; the paper's beside it."""
    figure = Figure(figsize=(9 if known else 5.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if known else 1, sharey=True, squeeze=False)[0]
    measured = [row for row in rows if row.accuracy is not None]
    _against_size(
        panels[0],
        f"measured, {rows[0].examples:,} training images",
        [(row.formula_bytes / 1e6, row.accuracy or 0, row.ratio) for row in measured],
        rows[0].cls_bytes / 1e6,
    )
    if known is not None:
        printed = [1e3 * float(gigabytes) for gigabytes in known.masked_gigabytes]
        _against_size(
            panels[1],
            f"paper, {known.train:,} training images",
            [*zip(printed, known.accuracy, RATIOS, strict=True)],
            1e3 * float(known.cls_gigabytes),
        )
    panels[0].set_ylabel(BEST)
    figure.suptitle(title)
    return figure


def _against_size(
    axes: Axes, title: str, points: Sequence[tuple[float, float, float]], cls_size: float
) -> None:
    """Points (MB, accuracy, ratio), labelled by ratio, and lines for two sizes to compare with."""
    axes.plot([x for x, _, _ in points], [100 * y for _, y, _ in points], marker="o")
    for x, y, ratio in points:
        # To the upper left, where the line, which rises, does not pass.
        label = axes.annotate(
            f"{ratio:g}", (x, 100 * y), (-4, 5), textcoords="offset points", ha="right", size=8
        )
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
    whole = max((x / (1 - ratio) for x, _, ratio in points), default=0)
    axes.axvline(whole, color="grey", linestyle=":", label="no patch removed")
    axes.axvline(cls_size, color="tab:green", linestyle="--", label="CLS vectors")
    axes.margins(y=0.12)
    _finish(axes, title, "size of the masked images in MB", "")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right", fontsize=8)


def _mean_curve(cell: Cell) -> list[float]:
    curves = [result["test_accuracy_per_epoch"] for result in cell.results]
    return [100 * sum(epoch) / len(epoch) for epoch in zip(*curves, strict=True)]


def _dot(line: Sequence[float]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if len(line) <= 30 else {}


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)


def _legend_outside(figure: Figure) -> None:
    """One legend for all panels, beside them, where it covers no line."""
    handles = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend([*handles.values()], [*handles], loc="outside right upper", fontsize=9)
