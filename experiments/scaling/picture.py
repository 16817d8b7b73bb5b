"""Cost against size, one logarithmic panel for each question."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

EXPECTED: dict[str, Any] = {"color": "grey", "linestyle": "--", "zorder": 1}
AT_THE_RATE = "operations at the rate\nof a matrix product"
# Two ways that need almost the same memory: the open square stays visible around the dot.
MARKERS: dict[str, dict[str, Any]] = {
    "data parallel": {"marker": "s", "markersize": 9, "fillstyle": "none"},
}


def draw(results: dict[str, Any]) -> Figure:
    """A panel, or two, for each part of the results that is there."""
    panels = [
        (part, panel)
        for part, found in PANELS.items()
        if part in results["results"]
        for panel in found
    ]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for (part, panel), where in zip(panels, axes, strict=False):
        panel(where, results["results"][part], results["clock"])
    for unused in list(axes)[len(panels) :]:
        unused.remove()
    machine = results["machine"]
    name, cores, device = (machine[part] for part in ("processor", "cores", "device"))
    figure.suptitle(f"{name}, cores: {cores}, JAX on {device}")
    return figure


def _time_of_images(axes: Axes, part: dict[str, Any], clock: str) -> None:
    points = part["points"]
    sizes = [p["images"] for p in points]
    _spread(axes, sizes, [_times(p, p["images"]) for p in points], "extraction")
    fit = part["time_s"]
    line = [fit["at_zero"] + fit["slope"] * size for size in sizes]
    label = f"{_milli(fit['at_zero'])} + {1e6 * fit['slope']:.0f} µs an image"
    axes.plot(sizes, line, label=label, **EXPECTED)
    _finish(axes, "Extraction: time", "images", clock, sizes)


def _memory_of_images(axes: Axes, part: dict[str, Any], clock: str) -> None:
    points = part["points"]
    sizes = [p["images"] for p in points]
    peaks = [{k: v / 1e6 for k, v in p["peak_bytes"].items()} for p in points]
    _spread(axes, sizes, peaks, "peak of the process")
    warm = [p["warm_bytes"]["median"] / 1e6 for p in points]
    axes.plot(sizes, warm, label="before, compiled", **EXPECTED)
    axes.set_ylim(10, 10_000)
    _finish(axes, "Extraction: memory", "images", "resident memory (MB)", sizes)


def _widths(axes: Axes, part: dict[str, Any], clock: str) -> None:
    label: str | None = AT_THE_RATE
    sizes = sorted({p["width"] for p in part["points"]})
    for variant in dict.fromkeys(p["variant"] for p in part["points"]):
        points = [p for p in part["points"] if p["variant"] == variant]
        _spread(axes, sizes, [p["seconds_per_unit"] for p in points], variant)
        axes.plot(sizes, [p["expected_s"] for p in points], label=label, **EXPECTED)
        label = None
    _finish(axes, "Width: 768-w-w-10", "hidden neurons w", f"{clock} per step", sizes)


def _workers(axes: Axes, part: dict[str, Any], clock: str) -> None:
    points = part["points"]
    sizes = [p["workers"] for p in points]
    times = [{k: 1e6 * v for k, v in p["seconds_per_unit"].items()} for p in points]
    _spread(axes, sizes, times, "IST, one device")
    expected = [1e6 * p["expected_s"] for p in points]
    axes.plot(sizes, expected, label=AT_THE_RATE, **EXPECTED)
    title = f"Workers: {'-'.join(map(str, part['widths']))}"
    unit = clock.replace("(s)", "(µs)")
    _finish(axes, title, "workers", f"{unit} per example", sizes)


def _steps(axes: Axes, part: dict[str, Any], clock: str) -> None:
    points = part["points"]
    sizes = [p["local_steps"] for p in points]
    times = [{k: 1e3 * v for k, v in p["seconds_per_unit"].items()} for p in points]
    _spread(axes, sizes, times, f"IST, {part['workers']} workers, one device")
    fit = part["round_s"]
    line = [1e3 * (fit["at_zero"] / j + fit["slope"]) for j in sizes]
    label = f"{_milli(fit['slope'])} a step +\n{_milli(fit['at_zero'])} a round"
    axes.plot(sizes, line, label=label, **EXPECTED)
    title = f"Local steps: {'-'.join(map(str, part['widths']))}"
    unit = clock.replace("(s)", "(ms)")
    _finish(axes, title, "local steps of a round", f"{unit} per step", sizes)


def _memory(axes: Axes, part: dict[str, Any], clock: str) -> None:
    rows = [r for r in part["amazon_670k"] if r["optimizer"] == "adam"]
    sizes = sorted({r["widths"][1] for r in rows})
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for r in rows:
        lines.setdefault((r["way"], r["workers"]), []).append(r)
    for (way, n), some in lines.items():
        if "compiled" in some[0]:
            total = [r["compiled"]["total"] / 1e9 for r in some]
            style = MARKERS.get(way, {"marker": "o"})
            axes.plot(sizes, total, label=f"{way}, {n} devices", **style)
    for (way, n), some in lines.items():
        if way == "IST, sharded" and "compiled" not in some[0]:
            total = [r["counted"]["total"] / 1e9 for r in some]
            axes.plot(sizes, total, label=f"{way}, {n} devices, by shapes", linestyle=":")
    axes.axhline(part["budget_bytes"] / 1e9, label=f"{part['budget_bytes'] / 1e9:g} GB", **EXPECTED)
    drawn = [value for line in axes.lines for value in np.asarray(line.get_ydata())]
    axes.set_ylim(min(drawn) / 6, 1.4 * max(drawn))  # room for the legend
    title = f"{rows[0]['widths'][0]:,}-d-{rows[0]['widths'][2]:,}, Adam"
    _finish(axes, title, "hidden neurons d", "memory of a device (GB)", sizes)


PANELS: dict[str, Sequence[Callable[[Axes, dict[str, Any], str], None]]] = {
    "features": (_time_of_images, _memory_of_images),
    "widths": (_widths,),
    "workers": (_workers,),
    "steps": (_steps,),
    "memory": (_memory,),
}


def _times(point: dict[str, Any], units: float) -> dict[str, float]:
    return {name: value * units for name, value in point["seconds_per_unit"].items()}


def _spread(axes: Axes, x: Sequence[float], y: Sequence[dict[str, float]], label: str) -> None:
    """Medians, with bars from the least to the greatest."""
    middle = [spread["median"] for spread in y]
    below = [spread["median"] - spread["least"] for spread in y]
    above = [spread["greatest"] - spread["median"] for spread in y]
    axes.errorbar(x, middle, yerr=[below, above], marker="o", capsize=3, label=label)


def _milli(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def _finish(axes: Axes, title: str, x: str, y: str, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}".replace(",000", "k") for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
