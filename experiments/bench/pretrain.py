r"""How fast jist pre-trains a masked autoencoder, beside PyTorch on the same machine.

    python -m experiments.bench.pretrain --encoder nano --batch-size 256 --out runs/bench.json

The same model, batch, precision and single device; PyTorch eager and through `torch.compile`
(see `experiments.bench.torch_mae`); without PyTorch, jist alone. Both variants are given the same
prepared views, uint8 images on the device, and one mask for each: random crops and the drawing of
masks, which `experiments.pretrain` adds, are left out on both. First they must do the same work:
from the same weights, 20 steps of AdamW in float32, warm-up included, give losses within 1e-4
relative.
Then the variants take turns: in every repeat each takes `steps` steps. Compilation, with the first
step, is timed apart; what `torch.compile` fails to compile is left out. A step's operations are
compared with a rate that is measured before all: of large square products in the same compute type,
by XLA or PyTorch, whichever is faster. Prints medians with their least and greatest values; writes
all samples, after every repeat. Aims: 1.3 times as fast as eager float32 on a CPU (measured so far:
BUILD_NOTES.md), 1.2 times as fast as compiled bfloat16 on a GPU.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench.hardware import commit, machine, take_device, unless_uncompilable
from experiments.bench.pretrain_steps import check, make_work, step_flops
from experiments.bench.roofline import DTYPES, MATMUL, matmul_rates, product_case
from experiments.bench.timing import measure, seconds, spread
from experiments.command.cli import Options, run
from experiments.runs.directory import write_json
from experiments.runs.pretraining import SIZES
from jist.features import exact_products

CHECK_STEPS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """Options of the comparison; without any it takes some minutes on 2 CPU cores."""

    encoder: str = "nano"
    """Size, as of experiments.pretrain: nano, tiny, small or base."""
    batch_size: int = 256
    """Images in a step."""
    steps: int = 10
    """Steps of each variant in a repeat."""
    repeats: int = 7
    """How often the variants take turns."""
    dtype: str = "float32"
    """Compute type: float32 or bfloat16."""
    device: str = "cpu"
    """cpu or gpu."""
    compile: bool = True
    """Whether PyTorch runs through torch.compile as well."""
    out: pathlib.Path = pathlib.Path("runs/bench_pretrain.json")
    """Where all samples are written."""


def main(options: BenchOptions) -> None:
    """Checks that the variants do the same work, then times them in turns."""
    for name, allowed in (("encoder", SIZES), ("dtype", DTYPES), ("device", MATMUL)):
        if getattr(options, name) not in allowed:
            raise ValueError(f"{name} must be one of {(*allowed,)}, got {getattr(options, name)!r}")
    for name in ("batch_size", "steps", "repeats"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(options, name)}")
    take_device(options.device)
    report: dict[str, Any] = {
        "command": " ".join(["python -m experiments.bench.pretrain", *sys.argv[1:]]),
        "options": dataclasses.asdict(options) | {"out": str(options.out)},
        "commit": commit(),
        "machine": machine(),
        "step_flops": step_flops(*SIZES[options.encoder], options.batch_size),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    product = product_case(options.dtype, options.device, *MATMUL[options.device])
    report["products"] = measure(product, options.repeats)
    rate = matmul_rates([report["products"]])[options.dtype]
    with empty_caches():
        report["same_work"] = check_work(options)
    write_json(options.out, report)
    with empty_caches():
        for measured in take_turns(options):
            report["results"] = summarise(measured, rate, options)
            report["samples"] = measured
            write_json(options.out, report)
    print_table(report["results"], options)
    print(f"written: {options.out}")


@contextlib.contextmanager
def empty_caches() -> Iterator[None]:
    """Nothing is compiled yet, neither here nor on disk, since compilation is timed."""
    jax.clear_caches()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as caches:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
        os.environ["TRITON_CACHE_DIR"] = os.path.join(caches, "triton")
        yield


def check_work(options: BenchOptions) -> dict[str, Any]:
    """The losses of all variants in some steps of float32, as `bench_sides.check` returns them.

    Raises:
        RuntimeError: they differ.
    """
    work = make_work(options.encoder, options.batch_size, CHECK_STEPS)
    with exact_products("float32"):
        same_work = check(work.variants("float32", options.device, options.compile), work.order)
    for name, difference in same_work["differences"].items():
        if name != "jist":
            print(f"{name}: {CHECK_STEPS} losses within {difference:.1e} of jist's")
    return same_work


def take_turns(options: BenchOptions) -> Iterator[dict[str, Any]]:
    """Lets the variants take turns.

    Yields:
        After every repeat all samples so far: `step_s`, seconds of a step by variant; and
        `first_step_s`, `left_out`: variants that `torch.compile` fails to compile, and why.
    """
    work = make_work(options.encoder, options.batch_size, 2 + options.repeats * options.steps)
    with exact_products(options.dtype):
        variants, first, left_out = {}, {}, {}
        for name, steps in work.variants(options.dtype, options.device, options.compile).items():
            one = functools.partial(steps, work.order[:1])
            taken = unless_uncompilable(name, functools.partial(seconds, one))
            if isinstance(taken, str):
                left_out[name] = taken
            else:
                variants[name], first[name] = steps, taken
        for steps in variants.values():
            steps(work.order[1:2])
        step_s: dict[str, list[float]] = {name: [] for name in variants}
        for part in work.order[2:].reshape(options.repeats, options.steps, -1):
            for name, steps in variants.items():
                taken = seconds(functools.partial(steps, part))
                step_s[name].append(taken / options.steps)
            yield {"step_s": step_s, "first_step_s": first, "left_out": left_out}


def summarise(measured: dict[str, Any], rate: float, options: BenchOptions) -> dict[str, Any]:
    """Of every variant median, least and greatest: images per second, share of the product's rate.

    jist's gain over a variant is taken repeat by repeat, so that what slows both down cancels.

    Args:
        measured: samples, as `take_turns` yields them.
        rate: floating-point operations per second of a matrix product.
        options: those of the script.
    """
    step_s = {name: np.asarray(samples) for name, samples in measured["step_s"].items()}
    flops = step_flops(*SIZES[options.encoder], options.batch_size)
    results = {}
    for name, samples in step_s.items():
        results[name] = {
            "images_per_s": spread((options.batch_size / samples).tolist()),
            "share_of_matmul": spread((flops / samples / rate).tolist()),
            "jist_is_faster_by": spread((samples / step_s["jist"]).tolist()),
            "first_step_s": measured["first_step_s"][name],
        }
    return results


def print_table(results: dict[str, Any], options: BenchOptions) -> None:
    """Prints one row per variant."""
    table = Table(
        title=f"Pre-training, {options.encoder}, batch {options.batch_size}, {options.dtype}, "
        f"{options.device}: median (least to greatest) of {options.repeats}"
    )
    table.add_column("variant")
    for column in ("images/s", "of the product's rate", "jist is faster by", "first step (s)"):
        table.add_column(column, justify="right")
    for name, row in results.items():
        table.add_row(
            name,
            _cell(row["images_per_s"], ".1f"),
            _cell(row["share_of_matmul"], ".1%"),
            _cell(row["jist_is_faster_by"], ".2f") if name != "jist" else "",
            f"{row['first_step_s']:.1f}",
        )
    Console(width=120).print(table)


def _cell(spread: dict[str, float], form: str) -> str:
    return f"{spread['median']:{form}} ({spread['least']:{form}} to {spread['greatest']:{form}})"


if __name__ == "__main__":
    run(main, BenchOptions, __doc__ or "")
