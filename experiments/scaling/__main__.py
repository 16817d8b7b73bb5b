"""Cost as the work grows: images, widths, workers, local steps, and the largest network that fits.

    python -m experiments.scaling --out runs/scaling
    python -m experiments.scaling --quick

Writes `scaling.json` (all samples, the machine, the versions; of each part the command and the
commit) and `scaling.png`. Parts that are not measured again stay as they are there, if the machine
is the same, whatever the commit. Expected: about 9 minutes on one CPU core. Time of extraction
grows linearly and its memory, which is measured on Linux alone, does not; time of a step follows
the operations of its matrix products.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench.hardware import commit, machine, take_device
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures import png
from experiments.runs.directory import read_json, write_json
from experiments.scaling import features, largest, picture, rounds

PARTS = ("features", "widths", "workers", "steps", "memory")
CLOCK = {"cpu": "processor time (s)", "gpu": "time (s)"}
_PRODUCT = (64, 2)  # side and count
QUICK: dict[str, dict[str, Any]] = {
    "features": {"sizes": (40, 80)},
    "widths": {"widths": (32,), "product": _PRODUCT},
    "workers": {"workers": (1, 4), "width": 16, "steps": 2, "product": _PRODUCT},
    "steps": {"steps": (1, 4), "width": 16},
    "memory": {"dimensions": (16, 32), "workers": (4,), "deep": (), "outer": (64, 128)},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingOptions(Options):
    """Options of the scaling measurements."""

    only: tuple[str, ...] = PARTS
    """Which of them: features, widths, workers, steps, memory."""
    device: str = "cpu"
    """cpu or gpu."""
    quick: bool = False
    """Small sizes in place of the real ones: shows in half a minute whether everything runs here,
    and measures nothing."""
    repeats: int = 3
    """Samples of every size; sizes take turns."""
    out: pathlib.Path = pathlib.Path("runs/scaling")
    """The directory in which results are written."""
    note: str = ""
    """Written down with the results: what else the machine did."""


def main(options: ScalingOptions) -> None:
    """Measures one part after the other; the files are written after each."""
    unknown = [name for name in options.only if name not in PARTS]
    if unknown or not options.only:
        raise UsageError(f"only must be of {PARTS}, got {unknown or 'none of them'}")
    if options.repeats < 1:
        raise UsageError(f"repeats must be positive, got {options.repeats}")
    take_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "scaling.json"
    here = {"machine": machine(), "clock": CLOCK[options.device]}
    report = here | {"results": {}} | (read_json(file) if file.exists() else {})
    if {name: report[name] for name in here} != json.loads(json.dumps(here)):
        raise UsageError(
            f"{file} was measured on another machine, device or version, or with other XLA flags; "
            f"choose another --out or remove it: {report['machine']}"
        )
    measured_by = {
        "command": " ".join(["python -m experiments.scaling", *sys.argv[1:]]),
        "commit": commit(),
        "quick": options.quick,
        "note": options.note,
    }
    for name in options.only:
        found = measure(name, options)
        report["results"][name] = measured_by | found
        write_json(file, report)
        png.write(picture.draw(report), options.out / "scaling.png")
        print_part(name, found)
    print(f"written: {file}, {options.out}/scaling.png")


def measure(part: str, options: ScalingOptions) -> dict[str, Any]:
    """The results of a part."""
    sizes = QUICK[part] if options.quick else {}
    if part == "memory":
        return largest.measure(**sizes)
    measured = {
        "features": features.measure,
        "widths": rounds.measure_widths,
        "workers": rounds.measure_workers,
        "steps": rounds.measure_steps,
    }
    # Full float32 on a GPU too, as the products with which times are compared.
    with jax.default_matmul_precision("float32"):
        return measured[part](options.repeats, options.device, **sizes)


def print_part(name: str, part: dict[str, Any]) -> None:
    """Prints what was found."""
    if name == "memory":
        print_memory(part)
        return
    table = Table(title=name, box=box.SIMPLE_HEAD, pad_edge=False)
    size = next(iter(part["points"][0]))
    for column in (size, "", f"seconds per {part['unit']}", "times expected", "peak MB"):
        table.add_column(column)
    for point in part["points"]:
        spread, peak = point["seconds_per_unit"], point.get("peak_bytes")
        table.add_row(
            f"{point[size]:,}",
            point.get("variant", ""),
            f"{spread['median']:.4g} ({spread['least']:.4g} to {spread['greatest']:.4g})",
            f"{point['times_expected']:.2f}" if "times_expected" in point else "",
            f"{peak['median'] / 1e6:.0f}" if peak else "",
        )
    Console(width=120).print(table)
    for fitted in ("time_s", "memory_bytes", "round_s"):
        if fitted in part:
            line = part[fitted]
            print(
                f"{fitted}: {line['at_zero']:.4g} + {line['slope']:.4g} for each, "
                f"at most {line['worst_error']:.1%} off"
            )


def print_memory(part: dict[str, Any]) -> None:
    """Prints GB per device, by shapes / by the compiled program."""
    for name in ("amazon_670k", "deep"):
        lines: dict[tuple[str, str, str], dict[str, str]] = {}
        for row in part[name]:
            cells = lines.setdefault((row["way"], str(row["workers"]), row["optimizer"]), {})
            found = [row[by]["total"] / 1e9 for by in ("counted", "compiled") if by in row]
            cells["-".join(map(str, row["widths"]))] = " / ".join(f"{gb:.2f}" for gb in found)
        title = f"{name}: GB per device, by shapes / compiled"
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
        networks = dict.fromkeys("-".join(map(str, row["widths"])) for row in part[name])
        for column in ("", "devices", "optimizer", *networks):
            table.add_column(column)
        for line, cells in lines.items():
            table.add_row(*line, *cells.values())
        Console(width=160).print(table)
    for found in part["largest"]:
        print(
            f"{part['budget_bytes'] / 1e9:g} GB hold d = {found['dimension']} by {found['way']}, "
            f"{found['workers']} devices, {found['optimizer']} ({found['by']})"
        )


if __name__ == "__main__":
    run(main, ScalingOptions, __doc__ or "")
