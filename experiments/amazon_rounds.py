r"""Rounds of independent subnet training at the size of Amazon-670k, really carried out.

    python -m experiments.amazon_rounds --workers 4 --out runs/amazon-rounds.json

The network 135,909 -> d -> 670,091 of Yuan et al. (VLDB 2022, §5) on synthetic examples of that
shape (`jist.data.sparse.synthetic`), `exchange="sharded"`: no device holds the network. On a CPU
`JAX_NUM_CPU_DEVICES=4` gives each of four workers a device of its own. Plain SGD, as in the
authors' released code. Printed and written are examples per second; the memory of a worker's step
by formula, of its round by XLA, and what the process held; and the precision at 1 on unseen
examples beside that of the most frequent label. `--negatives 8192` computes the outputs of so many
labels in a step, `--output-dtype bfloat16` stores the last kernel so, rounded at random.
Expected with the defaults on 2 CPU cores: 10 minutes, 10 GB.
"""

import dataclasses
import functools
import pathlib
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options.images import OUTPUT_DTYPES
from experiments.runs.directory import write_json
from experiments.runs.images import progress_bar
from jist import costs
from jist.data.order import worker_order
from jist.data.sparse import SparseExamples
from jist.data.sparse.synthetic import FEATURES, LABELS, AmazonLike
from jist.evaluation import evaluate
from jist.models import SparseMLP, as_shapes, calibrate
from jist.ragged import take
from jist.strategies import (
    IST,
    FusedOutput,
    LazyRows,
    State,
    stochastically_rounded,
    workers_mesh,
)
from jist.tasks import Task, multilabel, prior_logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmazonRoundsOptions(Options):
    """Options of the rounds."""

    workers: int = 4
    """Workers n, on the most devices that divide them."""
    width: int = 512
    """Hidden neurons d."""
    scale: float = 1.0
    """Share of the 135,909 features and 670,091 labels, in (0, 1]."""
    examples: int = 20_000
    """Training examples that are made up, of 490,449."""
    rounds: int = 10
    """Rounds that are carried out; the first, which compiles, is not timed."""
    local_steps: int = 5
    """Steps J of a worker in a round."""
    batch_size: int = 128
    """Examples B in a worker's batch."""
    lr: float = 0.5
    """Learning rate of SGD."""
    lazy_rows: bool = False
    """Steps leave those rows of the first kernel alone whose features a batch lacks."""
    fused_output: bool = False
    """Steps of the output layer are taken a chunk of labels at a time, and its gradient is never
    held whole."""
    negatives: int = 0
    """Labels drawn in every step, and trained against in the place of all others; 0 for all."""
    output_dtype: str = "float32"
    """Type of the output layer's weights: float32, or bfloat16, rounded at random."""
    chunk: int = 8192
    """Labels whose logits are computed at a time."""
    test_examples: int = 1024
    """Unseen examples for the precision at 1."""
    seed: int = 0
    """Decides examples, initial values, order and partitions."""
    out: pathlib.Path = pathlib.Path("runs/amazon-rounds.json")
    """Where the result is written."""


def main(options: AmazonRoundsOptions) -> None:
    """Carries the rounds out and reports."""
    if not 0 < options.scale <= 1:
        raise UsageError(f"scale must lie in (0, 1], got {options.scale}")
    if options.rounds < 2:
        raise UsageError(f"rounds must be at least 2, got {options.rounds}")
    if options.fused_output and (options.lazy_rows or options.negatives):
        other = "--lazy-rows" if options.lazy_rows else "--negatives"
        raise UsageError(f"--fused-output cannot be used with {other}")
    if options.output_dtype not in OUTPUT_DTYPES:
        raise UsageError(
            f"output_dtype must be one of {OUTPUT_DTYPES}, got {options.output_dtype!r}"
        )
    source = AmazonLike(
        round(options.scale * FEATURES), round(options.scale * LABELS), options.seed
    )
    train = source.examples("train", options.examples)
    test = source.examples("test", options.test_examples)
    task = multilabel(chunk=options.chunk)
    strategy = build(options, source, task)
    before = peak_bytes()
    state = strategy.init(options.seed, initial_values(source, train, options))
    examples = jax.device_put(train.arrays, strategy.replicated)
    order = functools.partial(
        worker_order,
        options.seed,
        examples=len(train),
        workers=options.workers,
        batch_size=options.batch_size,
        steps=options.local_steps,
    )
    compiled = round_bytes(strategy, state, examples, order(first_step=0))
    took, computed, losses = [], [], []
    with progress_bar() as progress:
        bar = progress.add_task("rounds", total=options.rounds)
        for number in range(options.rounds):
            start, used = time.perf_counter(), time.process_time()
            rows = order(first_step=number * options.local_steps)
            state, metrics = strategy.round(state, examples, rows)
            losses.append(float(metrics["loss"].mean()))
            took.append(time.perf_counter() - start)
            computed.append(time.process_time() - used)
            progress.update(bar, advance=1)
    held = peak_bytes() - before
    found = precision(strategy, state, task, train, test)
    per_round = options.workers * options.local_steps * options.batch_size
    own = (source.features, -(-options.width // options.workers), source.labels)
    result: dict[str, Any] = {
        "synthetic": True,
        "widths": [source.features, options.width, source.labels],
        "workers": options.workers,
        "devices": strategy.mesh.size,
        "batch_size": options.batch_size,
        "local_steps": options.local_steps,
        "lazy_rows": options.lazy_rows,
        "fused_output": options.fused_output,
        "negatives": options.negatives,
        "output_dtype": options.output_dtype,
        "lr": options.lr,
        "examples_per_s": per_round / float(np.median(took[1:])),
        # What other programs take does not show in these: seconds of all cores together.
        "examples_per_cpu_s": per_round / float(np.median(computed[1:])),
        "round_s": took,
        "round_cpu_s": computed,
        "train_loss": losses,
        "examples_seen": per_round * options.rounds,
        "parameters": costs.count(strategy._params),
        "parameters_per_worker": strategy.parameters_per_worker,
        # The formula is of all labels, in float32.
        "step_bytes_per_worker_formula": costs.label_step_bytes(
            own,
            options.batch_size,
            train.features.longest,
            options.chunk,
            fused=options.fused_output,
        )
        if not options.negatives and options.output_dtype == "float32"
        else None,
        "shard_bytes_per_device": costs.size_bytes(strategy._params) // strategy.mesh.size,
        "round_bytes_per_device_xla": compiled,
        "process_bytes": held,
        **found,
    }
    write_json(options.out, result)
    for name, value in result.items():
        if not isinstance(value, list):
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(f"written: {options.out}")


def build(options: AmazonRoundsOptions, source: AmazonLike, task: Task) -> IST:
    """The strategy, which is given shapes alone: the host holds no second copy of the network."""
    model = as_shapes(lambda: untrained(options, source, jax.random.key(0)))
    optimizer = optax.sgd(options.lr)
    if options.output_dtype == "bfloat16":
        optimizer = stochastically_rounded(optimizer, options.seed)
    if options.lazy_rows:
        optimizer = LazyRows(optimizer)
    elif options.fused_output:
        optimizer = FusedOutput(optimizer)
    return IST(
        model,
        optimizer,
        workers=options.workers,
        local_steps=options.local_steps,
        partition="stratified",
        exchange="sharded",
        loss=task.loss,
        mesh=workers_mesh(options.workers),
    )


def initial_values(source: AmazonLike, train: SparseExamples, options: AmazonRoundsOptions) -> Any:
    """Makes the initial parameters of a key."""
    prior = prior_logits(train.label_frequencies, len(train))

    def draw(key: jax.Array) -> Any:
        model = untrained(options, source, key)
        # By an example's entries, whose number is far below that of all features.
        model.layers[0].kernel[...] *= (source.features / 100) ** 0.5
        assert model.last.bias is not None
        model.last.bias[...] = jnp.asarray(prior)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    return draw


def untrained(options: AmazonRoundsOptions, source: AmazonLike, key: jax.Array) -> SparseMLP:
    """The network."""
    return SparseMLP(
        (source.features, options.width, source.labels),
        negatives=options.negatives,
        output_dtype=options.output_dtype,
        rngs=nnx.Rngs(key),
    )


def round_bytes(strategy: IST, state: State, examples: Any, order: np.ndarray) -> int:
    """What the compiled round needs on each device: its arguments and its intermediate results."""
    lowered = strategy._round.lower(state, strategy._rest, examples, order)
    memory = lowered.compile().memory_analysis()
    assert memory is not None  # on a CPU, a GPU and a TPU it is known
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes


def precision(
    strategy: IST, state: State, task: Task, train: SparseExamples, test: SparseExamples
) -> dict[str, float]:
    """The precision at 1 on unseen examples, and that of the most frequent label."""
    model = strategy.model(state)
    calibrate(model, take(train.features, slice(0, 512)))
    found = evaluate(model, test.arrays, task)
    frequent = int(train.label_frequencies.argmax())
    rows = test.labels[:]
    return {
        "test_precision_at_1": found["test_precision_at_1"],
        "test_precision_at_5": found["test_precision_at_5"],
        "most_frequent_label_precision_at_1": float((rows == frequent).any(axis=1).mean()),
    }


def peak_bytes() -> int:
    """The most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    run(main, AmazonRoundsOptions, __doc__ or "")
