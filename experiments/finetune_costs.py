r"""What one worker of fine-tuning needs: parameters, operations, memory, time, beside the whole.

    python -m experiments.finetune_costs --encoder mae-nano-cifar10-long --workers 2 4 \
        --out runs/finetune-costs.json

Compiles one step of one worker of independent subnet training, as `experiments.finetune` trains,
and one of the whole network. Memory is XLA's own account of that program (`memory_analysis`):
parameters, the optimiser's state, one batch, gradients and activations. The largest worker counts,
where they differ because their number does not divide that of the heads. Steps take turns, and
processor time is compared on a CPU. No data set is needed. Writes JSON.

Expected: half a minute on 2 CPU cores.
"""

import dataclasses
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench.hardware import commit, machine
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.directory import command_line, write_json
from experiments.runs.end_to_end import build_task
from experiments.runs.finetuning import (
    FinetuneOptions,
    build_classifier,
    build_finetuning,
)
from experiments.scaling.clock import take_turns
from jist.masking import patches_kept
from jist.strategies import Strategy

CLASSES, EXAMPLES = 10, 50_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostOptions(Options):
    """Options of the measurement."""

    encoder: str = "mae-nano-cifar10-long"
    """Name of a shipped encoder, directory of another, hf:OWNER/NAME[@REVISION] of the Hugging Face
    hub (converted once), or random-nano, -tiny, -small, -base."""
    mask_ratio: float = 0.75
    """Share of the patches of every image that is removed, in [0, 1)."""
    neurons: tuple[str, ...] = ("mlp", "heads")
    """What of the encoder is partitioned: any of mlp, heads, channels (of every head, in the place
    of heads) and blocks."""
    workers: tuple[int, ...] = (2, 4)
    """Numbers of workers n."""
    batch_size: int = 64
    """Images in a worker's batch."""
    dtype: str = "float32"
    """Compute type: float32 or bfloat16."""
    repeats: int = 7
    """Timed steps of each; 0 measures no time."""
    out: pathlib.Path = pathlib.Path("runs/finetune-costs.json")
    """The file that is written."""


def main(options: CostOptions) -> None:
    """Compiles, measures, prints and writes."""
    if options.repeats < 0 or options.batch_size < 1 or min(options.workers, default=0) < 2:
        raise UsageError(
            "repeats must be at least 0, batch_size 1, and workers 2, got "
            f"{options.repeats}, {options.batch_size} and {options.workers}"
        )
    rows, runs = [], {}
    for workers in (1, *options.workers):
        strategy, examples = build(options, workers)
        program = strategy.worker_step(examples, options.batch_size)
        memory: Any = program.memory_analysis()
        outside = memory.output_size_in_bytes - memory.alias_size_in_bytes
        rows.append(
            {
                "workers": workers,
                "parameters": strategy.parameters_per_worker,
                "flops": strategy.flops_per_step(examples, options.batch_size),
                "memory": memory.argument_size_in_bytes + outside + memory.temp_size_in_bytes,
                "activations_and_gradients": memory.temp_size_in_bytes,
            }
        )
        runs[workers] = stepper(program)
    if options.repeats:
        samples = take_turns(runs, options.repeats, jax.default_backend())
        for row in rows:
            own = samples[row["workers"]]
            ratios = [a / b for a, b in zip(own, samples[1], strict=True)]
            row |= {"seconds": own, "time_ratio": statistics.median(ratios)}
    for row in rows:
        for name in ("parameters", "flops", "memory"):
            row[f"{name}_ratio"] = row[name] / rows[0][name]
    result = {"machine": machine(), "commit": commit(), "command": command_line(), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    show(rows)
    print(f"written: {options.out}")


def build(options: CostOptions, workers: int) -> tuple[Strategy, Any]:
    """The strategy that trains so, and the shapes of its examples."""
    how: dict[str, Any] = {"strategy": "centralized"}  # which takes no neurons
    if workers > 1:
        how = {"strategy": "ist", "neurons": options.neurons}
    finetune = FinetuneOptions(
        encoder=options.encoder,
        mask_ratio=options.mask_ratio,
        dtype=options.dtype,
        batch_size=options.batch_size,
        workers=workers,
        **how,
    )
    model = build_classifier(finetune, CLASSES)
    config = model.encoder.config
    kept = patches_kept(config.patches, options.mask_ratio)
    side = config.image_size
    examples = {
        "x": {
            "image": jax.ShapeDtypeStruct((EXAMPLES, side, side, 3), jnp.uint8),
            "keep": jax.ShapeDtypeStruct((EXAMPLES, kept), jnp.int32),
        },
        "y": jax.ShapeDtypeStruct((EXAMPLES,), jnp.int32),
    }
    return build_finetuning(finetune, model, build_task(finetune), EXAMPLES), examples


def stepper(program: jax.stages.Compiled) -> Any:
    """Takes a step on zeros and waits for it; what is donated comes back for the next."""
    given, _ = program.args_info

    def zeros(shape: Any) -> jax.Array:
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), shape.shape)
        return jnp.zeros(shape.shape, shape.dtype)

    params, rest, opt_state, batch, rows = jax.tree.map(zeros, given)
    state = [params, opt_state]

    def step() -> None:
        state[0], state[1], losses = program(state[0], rest, state[1], batch, rows)
        jax.block_until_ready((state, losses))

    return step


def show(rows: list[dict[str, Any]]) -> None:
    """Prints one row per number of workers, as shares of the whole network's."""
    table = Table(title="One worker, largest of all, over the whole network", box=box.SIMPLE_HEAD)
    for column in ("workers", "parameters", "operations", "memory", "memory (MB)", "time"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["workers"]),
            *(f"{row[f'{name}_ratio']:.1%}" for name in ("parameters", "flops", "memory")),
            f"{row['memory'] / 1e6:.1f}",
            f"{row['time_ratio']:.1%}" if "time_ratio" in row else "–",
        )
    Console().print(table)


if __name__ == "__main__":
    run(main, CostOptions, __doc__ or "")
