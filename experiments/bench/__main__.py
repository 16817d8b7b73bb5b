r"""How fast jist is, beside PyTorch on the same machine and beside what the machine can do.

    python -m experiments.bench --out runs/bench.json
    python -m experiments.bench --quick
    python -m experiments.bench --only head ist --repeats 7 --out runs/bench-head.json
    python -m experiments.bench --only pretrain --pretrain.encoder tiny --no-compile

Each benchmark lets jist and PyTorch do the same work on the same data. Results are compared first,
then both are warmed up and take turns. Medians with their least and greatest values are printed;
the file holds all samples, the machine, the versions, the commit and the command. Without PyTorch
(the `test` extra) jist runs alone. A variant's first run, compilation included, is the work of a
turn or, of heads and rounds, the first `check_steps` steps, after which results are compared. What
`torch.compile` fails to compile is left out, and why is printed.

`roofline` is always run, and first: where a benchmark knows how many operations its matrix products
take, the share of the machine's rate that each variant reaches is printed. Expected on 2 CPU cores
with AMX: what is timed takes 22 minutes, the comparisons and trials before it come on top.
"""

import contextlib
import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench.hardware import commit, machine, take_device
from experiments.bench.pretrain import PretrainOptions
from experiments.bench.roofline import add_shares, matmul_rates
from experiments.bench.timing import JIST, measurements
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.directory import write_json

ROOFLINE = "roofline"
_OF_IMAGES = ("encode", "pipeline", "masks", "pretrain", "finetune")
BENCHMARKS = (ROOFLINE, "head", "ist", "wide", "xc", "stream", *_OF_IMAGES)
COMPILED = ("encode", "head", "pretrain", "finetune")  # that have a variant through torch.compile
# Of training in float32: on a GPU, JAX would round factors to TF32, and PyTorch does not.
TRAINED = ("head", "ist", "wide", "xc", "stream", "finetune")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """Options of the benchmarks."""

    only: tuple[str, ...] = BENCHMARKS
    """Which of them: roofline, head, ist, wide, xc, stream, encode, pipeline, masks, pretrain,
    finetune."""
    device: str = "cpu"
    """cpu or gpu."""
    quick: bool = False
    """Small sizes in place of the real ones: shows in two minutes whether everything runs here, and
    measures nothing."""
    repeats: int = 5
    """How often the variants take turns."""
    compile: bool = True
    """Whether PyTorch runs through torch.compile as well (encode, head, pretrain, finetune): it
    takes minutes to compile, most of all on a GPU."""
    pretrain: PretrainOptions = dataclasses.field(default_factory=PretrainOptions)
    """What the benchmark pretrain measures."""
    out: pathlib.Path = pathlib.Path("runs/bench.json")
    """Where all samples are written."""


def main(options: BenchOptions) -> None:
    """Measures one case after the other; the file is written again after every repeat."""
    unknown = [name for name in options.only if name not in BENCHMARKS]
    if unknown:
        raise UsageError(f"only must be of {BENCHMARKS}, got {unknown}")
    if options.repeats < 1:
        raise UsageError(f"repeats must be positive, got {options.repeats}")
    take_device(options.device)
    kept = ("quick", "repeats", "pretrain")
    report: dict[str, Any] = {
        "command": " ".join(["python -m experiments.bench", *sys.argv[1:]]),
        "options": {name: dataclasses.asdict(options)[name] for name in kept},
        "commit": commit(),
        "machine": machine(),
        "results": {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rates: dict[str, float] = {}
    # Each once, in the order asked for, after the rates that they are compared with.
    for name in dict.fromkeys((ROOFLINE, *options.only)):
        rows = report["results"][name] = []
        # The loop over cases is a function's, so that the last one's arrays are freed with it.
        for number, row in _results(name, options):
            add_shares(row, rates)
            rows[number:] = [row]
            write_json(options.out, report)
        if name == ROOFLINE:
            rates = matmul_rates(rows)
        print_table(name, rows)
    print(f"written: {options.out}")


def _results(name: str, options: BenchOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """The results of a benchmark's cases, each after every repeat, with the number of the case."""
    module = importlib.import_module(f"experiments.bench.{name}")
    given: dict[str, Any] = {"quick": options.quick}
    if name in COMPILED:
        given["compiled"] = options.compile
    if name == "pretrain":
        given["options"] = options.pretrain
    # Encoders say themselves how they multiply, by their compute type.
    exact = jax.default_matmul_precision("float32") if name in TRAINED else contextlib.nullcontext()
    with exact:
        for number, case in enumerate(module.cases(options.device, **given)):
            for row in measurements(case, options.repeats):
                yield number, row


def print_table(name: str, rows: list[dict[str, Any]]) -> None:
    """Prints a line for every variant of every case."""
    table = Table(title=name, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("work", "variant"):
        table.add_column(column)
    for column in ("a second", "jist is faster by", "of the product's rate", "first run (s)"):
        table.add_column(column, justify="right")
    for row in rows:
        for variant, result in row["variants"].items():
            share = result.get("share_of_matmul")
            table.add_row(
                row["name"] if variant == JIST else "",
                variant,
                f"{_cell(result['items_per_s'], '.4g')} {row['unit'].removesuffix('/s')}",
                "" if variant == JIST else _cell(result["jist_is_faster_by"], ".2f"),
                f"{share['median']:.0%}" if share else "",
                f"{result['first_run_s']:.1f}",
            )
    Console(width=140).print(table)


def _cell(spread: dict[str, float], form: str) -> str:
    return f"{spread['median']:{form}} ({spread['least']:{form}} to {spread['greatest']:{form}})"


if __name__ == "__main__":
    run(main, BenchOptions, __doc__ or "")
