r"""What exports of one run cost and lose: bytes, accuracy, and work for one image.

    python -m experiments.export_costs --exports exported/float32 exported/int8 \
        --images x.npy --labels y.npy --out runs/export-costs.json

Takes what `experiments.export` wrote of one run, with several `--format` and `--weights`, and
images as their `predict.py` does: u8 [N, S, S, C], with their classes [N]. JAX runs stablehlo, ONNX
Runtime onnx (at the masking ratio that it was exported for), PyTorch safetensors, eager and
compiled. For every masking ratio: accuracy, and processor time of one image at a time, all programs
in turns; ratios to the first program are taken turn by turn. An image keeps the same patches in all
programs. Processor time is of all threads: behind `taskset -c 0` there is one core, and it is what
an idle core would take. Beside it stand the floating-point operations of one image, as XLA counts
those of stablehlo, and the bytes of its visible pixels, which a sensor would send.

Expected: a minute for 2,000 images of 32 pixels and three programs.
"""

import dataclasses
import pathlib
import statistics
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench.exported import Program, programs
from experiments.bench.hardware import commit, machine
from experiments.bench.timing import spread
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.directory import command_line, read_json, write_json
from experiments.scaling.clock import take_turns
from jist.masking import patches_kept

STORED = (".stablehlo", ".onnx", ".safetensors")
CALLS = 20  # of one image, in a turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportCostsOptions(Options):
    """Options of the comparison."""

    exports: tuple[pathlib.Path, ...]
    """Directories of exports; the others are compared with the first."""
    images: pathlib.Path
    """Images u8 [N, S, S, C], as .npy."""
    labels: pathlib.Path
    """Their classes, whole numbers [N], as .npy."""
    ratios: tuple[float, ...] = (0.0, 0.5, 0.75)
    """Masking ratios, in [0, 1)."""
    repeats: int = 15
    """Turns of every program."""
    out: pathlib.Path = pathlib.Path("runs/export-costs.json")
    """The file that is written."""


def main(options: ExportCostsOptions) -> None:
    """Measures every ratio, prints and writes."""
    configs = {str(path): checked(path) for path in options.exports}
    config = configs[str(options.exports[0])]
    images, labels = (array(name, getattr(options, name)) for name in ("images", "labels"))
    side = config["image_size"]
    if images.dtype != np.uint8 or images.shape[1:3] != (side, side) or not len(images):
        raise UsageError(
            f"images must be u8 [N, {side}, {side}, C], got {images.dtype} {list(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise UsageError(f"labels must be [{len(images)}], got {list(labels.shape)}")
    found = {
        (name, program.runtime): program
        for name in configs
        for program in programs(pathlib.Path(name))
    }
    rows = [
        row
        for ratio in options.ratios
        for row in measured(found, config, ratio, images, labels, options.repeats)
    ]
    for row in rows:
        path = pathlib.Path(row["export"])
        row["weights"] = configs[row["export"]]["weights"]
        row["program_bytes"] = sum(
            file.stat().st_size for suffix in STORED for file in path.rglob(f"*{suffix}")
        )
    result = {"machine": machine(), "commit": commit(), "command": command_line()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result | {"images": len(images), "rows": rows})
    show(rows)
    print(f"written: {options.out}")


def array(name: str, path: pathlib.Path) -> np.ndarray:
    """The array of a .npy file; errors name the option."""
    try:
        return np.load(path)
    except (ValueError, EOFError):
        raise UsageError(f"{name}={path} is no array as np.save writes it") from None


def checked(path: pathlib.Path) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        UsageError: it is no export, or its network does not see patches.
    """
    if not (path / "config.json").is_file() or not any(
        list(path.glob(f"*{suffix}")) for suffix in STORED
    ):
        raise UsageError(f"exports: {path} holds no {', '.join(STORED)} with its config.json")
    config = read_json(path / "config.json")
    if not config.get("patches"):
        raise UsageError(f"exports: {path} does not see patches of images")
    return config


def measured(
    by_name: dict[tuple[str, str], Program],
    config: dict[str, Any],
    ratio: float,
    images: np.ndarray,
    labels: np.ndarray,
    repeats: int,
) -> list[dict[str, Any]]:
    """A row for every program that takes a masking ratio."""
    kept = patches_kept(config["patches"], ratio)
    programs = {key: of for key, of in by_name.items() if of.visible in (None, kept)}
    order = np.random.default_rng(0).random((len(images), config["patches"])).argsort(axis=1)
    keep = np.sort(order[:, :kept], axis=1).astype(np.int32)
    found = {name: program.classes(images, keep) for name, program in programs.items()}

    def one_by_one(program: Program) -> None:
        for i in range(CALLS):
            row = slice(i % len(images), i % len(images) + 1)
            program.call(images[row], keep[row])

    runs = {name: lambda of=program: one_by_one(of) for name, program in programs.items()}
    samples = take_turns(runs, repeats, "cpu")
    first = next(iter(programs))
    pixels = kept * config["patch_size"] ** 2 * images.shape[3]
    return [
        {
            "export": name[0],
            "runtime": name[1],
            "ratio": ratio,
            "accuracy": float(np.mean(found[name] == labels)),
            "same_class_as_first": float(np.mean(found[name] == found[first])),
            "milliseconds_per_image": spread([1e3 * s / CALLS for s in samples[name]]),
            "time_over_first": statistics.median(
                [a / b for a, b in zip(samples[name], samples[first], strict=True)]
            ),
            "operations": program.operations and program.operations(images[:1], keep[:1]),
            "visible_pixel_bytes": pixels,
        }
        for name, program in programs.items()
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """Prints a line for every program and ratio."""
    table = Table(box=box.SIMPLE_HEAD)
    names = ("ratio", "runtime", "weights", "MB", "accuracy", "same class", "ms", "time")
    for column in (*names, "MFLOP", "sent bytes"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['ratio']:g}",
            row["runtime"],
            row["weights"],
            f"{row['program_bytes'] / 1e6:.2f}",
            f"{row['accuracy']:.2%}",
            f"{row['same_class_as_first']:.1%}",
            f"{row['milliseconds_per_image']['median']:.2f}",
            f"{row['time_over_first']:.2f}",
            "–" if row["operations"] is None else f"{row['operations'] / 1e6:.1f}",
            str(row["visible_pixel_bytes"]),
        )
    Console().print(table)


if __name__ == "__main__":
    run(main, ExportCostsOptions, __doc__ or "")
