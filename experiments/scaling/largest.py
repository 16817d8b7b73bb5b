"""The largest network that fits: bytes per device, counted from shapes and by compiled programs.

The network of Amazon-670k (Yuan et al., VLDB 2022, §5): 135,909 features -> d -> 670,091 labels,
one worker on each device. Table 4 says that data parallel training "fails to handle" d beyond 512
on GPUs of 16 GB (p3.2xlarge) where IST on 8 of them handles d = 2560; it prints neither optimiser
nor batch size. Nothing of that size is allocated here: `jax.eval_shape` gives the shapes, and
programs are compiled for them and asked for their memory, but never run.

The devices are played by a process of its own, which `measure` starts.
"""

import itertools
import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec

from experiments.scaling.clock import linear_fit
from jist import costs
from jist.models import MLP, as_shapes
from jist.strategies import IST, DataParallel, State, Strategy, workers_mesh

INPUTS, LABELS, DIMENSIONS = 135_909, 670_091, (512, 1024, 1536, 2048, 2560)
WORKERS, COMPILED_WORKERS, DEVICES = (2, 4, 8), 4, 8
DEEP = ((1024, 4096, 4096, 4096, 10), (1024, 16384, 16384, 16384, 10))
BATCH, LOCAL_STEPS = 128, 2
BUDGET = 16e9  # bytes
OPTIMIZERS = {"sgd": optax.sgd(1e-2), "adam": optax.adam(1e-3)}
WAYS = ("data parallel", "IST, replicated", "IST, sharded")


def build(way: str, widths: tuple[int, ...], workers: int, optimizer: str) -> Strategy:
    """A strategy for a network of which only shapes are there, one worker on each device.

    Args:
        way: one of `WAYS`.
        widths: of an `MLP`.
        workers: number of workers and of devices.
        optimizer: one of `OPTIMIZERS`.
    """
    model = as_shapes(lambda: MLP(widths, rngs=nnx.Rngs(0)))
    options: dict[str, Any] = {
        "workers": workers,
        "local_steps": LOCAL_STEPS,
        "mesh": workers_mesh(workers, workers),
    }
    if way == "data parallel":
        return DataParallel(model, OPTIMIZERS[optimizer], **options)
    exchange = way.removeprefix("IST, ")
    return IST(model, OPTIMIZERS[optimizer], partition="stratified", exchange=exchange, **options)


def state_shapes(strategy: Strategy) -> State:
    """Shapes of the state between rounds, all devices together."""
    opt_state = jax.eval_shape(strategy._optimizer.init, strategy._params)
    counter = jax.ShapeDtypeStruct((), jnp.int32)
    return State(strategy._params, opt_state, counter, jax.eval_shape(lambda: jax.random.key(0)))


def counted_bytes(strategy: Strategy) -> dict[str, int]:
    """Bytes on a device by shapes: of what must lie there, batch and activations left out.

    Returns:
        `at_home`: parameters and the optimiser's state between rounds. `in_training`: beside them
        a gradient and, where subnets are cut, a worker's parameters and optimiser's state.
    """
    state, specs = state_shapes(strategy), strategy._state_specs()
    shares = jax.tree.map(
        lambda spec, part: _share(part, spec, strategy.mesh.size),
        (specs.params, specs.opt_state),
        (state.params, state.opt_state),
        is_leaf=lambda node: isinstance(node, PartitionSpec),
    )
    at_home = sum(jax.tree.leaves(shares))
    if not isinstance(strategy, IST):
        return {"at_home": at_home, "in_training": costs.size_bytes(state.params)}
    own, _ = strategy._worker_shapes()
    moments = jax.eval_shape(strategy._optimizer.init, own)
    return {"at_home": at_home, "in_training": costs.size_bytes((own, own, moments))}


def _share(tree: Any, spec: PartitionSpec, devices: int) -> int:
    return costs.size_bytes(tree) // (devices if "workers" in spec else 1)


def compiled_bytes(strategy: Strategy, widths: tuple[int, ...]) -> dict[str, int]:
    """Bytes on a device by the round that XLA compiles for CPUs.

    Returns:
        `arguments`: the state and `BATCH` examples; `temporaries`. What comes out takes the place
        of the state, whose buffers are donated.
    """
    examples = {
        "x": jax.ShapeDtypeStruct((BATCH, widths[0]), jnp.float32),
        "y": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    }
    order = jax.ShapeDtypeStruct((strategy.workers, LOCAL_STEPS, BATCH), jnp.int32)
    state = state_shapes(strategy)
    program = strategy._round.lower(state, strategy._rest, examples, order).compile()
    memory: Any = program.memory_analysis()
    outside = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes + outside,
    }


def row(
    way: str, widths: tuple[int, ...], workers: int, optimizer: str, *, compiled: bool
) -> dict[str, Any]:
    """One line of the table: bytes on each device, counted and, if asked for, compiled."""
    strategy = build(way, widths, workers, optimizer)
    found = {"counted": counted_bytes(strategy)}
    if compiled:
        found["compiled"] = compiled_bytes(strategy, widths)
    return {
        "way": way,
        "widths": list(widths),
        "workers": workers,
        "optimizer": optimizer,
        "parameters": costs.count(strategy._params),
        **{name: parts | {"total": sum(parts.values())} for name, parts in found.items()},
    }


def table(
    dimensions: tuple[int, ...] = DIMENSIONS,
    workers: tuple[int, ...] = WORKERS,
    deep: tuple[tuple[int, ...], ...] = DEEP,
    outer: tuple[int, int] = (INPUTS, LABELS),
) -> dict[str, Any]:
    """All lines, and by each way the largest dimension that the budget holds.

    Compiled are those on `COMPILED_WORKERS` devices with Adam.
    """

    def compiled(n: int, optimizer: str) -> bool:
        return (n, optimizer) == (COMPILED_WORKERS, "adam")

    amazon = [
        row(way, (outer[0], d, outer[1]), n, optimizer, compiled=compiled(n, optimizer))
        for way, n, optimizer in itertools.product(WAYS, workers, OPTIMIZERS)
        for d in dimensions
    ]
    others = [row(w, d, COMPILED_WORKERS, "adam", compiled=True) for d in deep for w in WAYS[1:]]
    fits = [
        {"way": way, "workers": n, "optimizer": optimizer, "by": by, "dimension": dimension}
        for way, n, optimizer in itertools.product(WAYS, workers, OPTIMIZERS)
        for by in ("counted", "compiled")
        if (dimension := _largest(amazon, by, (way, n, optimizer))) is not None
    ]
    return {
        "unit": "bytes per device",
        "batch": BATCH,
        "budget_bytes": BUDGET,
        "amazon_670k": amazon,
        "deep": others,
        "largest": fits,
    }


def _largest(rows: list[dict[str, Any]], by: str, which: tuple[str, int, str]) -> int | None:
    """The dimension at which the line through the bytes of some rows meets the budget."""
    some = [r for r in rows if (r["way"], r["workers"], r["optimizer"]) == which and by in r]
    if not some:
        return None
    line = linear_fit([r["widths"][1] for r in some], [r[by]["total"] for r in some])
    return math.floor((BUDGET - line["at_zero"]) / line["slope"])


def measure(**sizes: Any) -> dict[str, Any]:
    """The table, by a process with so many devices; whatever the measured device, on the CPU.

    Args:
        **sizes: as of `table`.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    child = subprocess.run(
        [sys.executable, "-m", "experiments.scaling.largest", json.dumps(sizes)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"counting the bytes of the largest network failed:\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(table(**{name: tuple(of) for name, of in json.loads(sys.argv[1]).items()})))
