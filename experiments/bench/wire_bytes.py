"""What workers send over the wire, against what `jist.costs` says they do.

    python -m experiments.bench.wire_bytes --out runs/wire_bytes.json

On Linux, where /proc counts them. Starts a process for every worker, in a network namespace of
their own where the system allows one, so that its loopback interface carries nothing else. After a
round in which connections are made, reads the interface's count of received bytes before and after
some rounds of every strategy; a worker's share is one of n. What is beyond the payload are headers
and acknowledgements (Yuan et al., VLDB 2022, §2.3, count the payload). Writes a table and JSON,
which says whether the namespace was their own. Expected on 2 CPU cores: two minutes, and every
strategy within 5 % of its count.
"""

import dataclasses
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from rich.console import Console
from rich.table import Table

from experiments.command import processes
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import ProcessOptions, pick
from experiments.runs.directory import read_json, write_json
from jist.models import MLP
from jist.strategies import IST, DataParallel, LocalSGD, Strategy

BATCH = 64
STRATEGIES: dict[str, tuple[type[Strategy], dict[str, Any]]] = {
    "ist, replicated": (IST, {}),
    "ist, sharded": (IST, {"exchange": "sharded", "partition": "stratified"}),
    "ist, sharded, bfloat16": (
        IST,
        {"exchange": "sharded", "partition": "stratified", "exchange_dtype": jnp.bfloat16},
    ),
    "data_parallel": (DataParallel, {}),
    "local_sgd": (LocalSGD, {}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WireBytesOptions(Options, ProcessOptions):
    """Options of the measurement; none is needed, and those of processes are its own."""

    out: pathlib.Path = pathlib.Path("runs/wire_bytes.json")
    """Where the result is written."""
    workers: int = 4
    """Number of workers n, and of processes."""
    widths: tuple[int, ...] = (768, 1000, 1000, 10)
    """Widths of the network."""
    rounds: int = 4
    """Rounds over which bytes are counted."""
    local_steps: int = 5
    """Steps of every worker in a round."""


def main(options: WireBytesOptions) -> None:
    """Starts the processes, or is one of them."""
    if options.workers < 2:
        raise UsageError(f"workers must be at least 2, got {options.workers}")
    if options.coordinator is not None:
        jax.config.update("jax_platforms", "cpu")  # GPUs of one machine do not use its interfaces
        processes.join(pick(options, ProcessOptions))
        measured = [measure(name, options) for name in STRATEGIES]
        if jax.process_index() == 0:
            print_table(measured)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, {"workers": options.workers, "results": measured})
        return
    launcher = [sys.executable, "-m", "experiments.launch", "-n", str(options.workers), "--"]
    command = [*launcher, "experiments.bench.wire_bytes", *_own_arguments(options)]
    own_namespace = namespaces_allowed()
    if own_namespace:
        command = [*NAMESPACE, 'ip link set lo up && exec "$@"', "sh", *command]
    else:
        print("no network namespace: other traffic over loopback is counted too", file=sys.stderr)
    ended = subprocess.run(command, check=False)
    if ended.returncode:
        raise RuntimeError(f"the processes ended with exit code {ended.returncode}")
    # Which the processes cannot tell.
    write_json(options.out, read_json(options.out) | {"own_namespace": own_namespace})


NAMESPACE = ("unshare", "--net", "--map-root-user", "sh", "-c")


def namespaces_allowed() -> bool:
    """Whether a network namespace with a loopback interface can be made."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    attempt = [*NAMESPACE, "ip link set lo up"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


def _own_arguments(options: WireBytesOptions) -> list[str]:
    return [
        *("--out", str(options.out)),
        *("--workers", str(options.workers)),
        *("--widths", *map(str, options.widths)),
        *("--rounds", str(options.rounds)),
        *("--local-steps", str(options.local_steps)),
    ]


def received_bytes() -> int:
    """Bytes that the loopback interface of this network namespace has received."""
    lines = pathlib.Path("/proc/self/net/dev").read_text().splitlines()
    (counts,) = (line.split(":")[1] for line in lines if line.strip().startswith("lo:"))
    return int(counts.split()[0])


def measure(name: str, options: WireBytesOptions) -> dict[str, Any]:
    """The bytes per round and worker that a strategy should receive, and does."""
    kind, choices = STRATEGIES[name]
    model = MLP(options.widths, rngs=nnx.Rngs(0))
    strategy = kind(
        model, optax.adam(1e-3), workers=options.workers, local_steps=options.local_steps, **choices
    )
    generator = np.random.default_rng(0)
    examples = {
        "x": generator.normal(size=(256, options.widths[0])).astype(np.float32),
        "y": generator.integers(0, options.widths[-1], 256).astype(np.int32),
    }
    # Placed before, so that only the round itself is counted.
    examples = jax.device_put(examples, strategy.replicated)
    order = generator.integers(0, 256, (options.workers, options.local_steps, BATCH)).astype(
        np.int32
    )
    order = jax.device_put(order, NamedSharding(strategy.mesh, P("workers")))
    state = strategy.init(0)

    state, _ = jax.block_until_ready(strategy.round(state, examples, order))
    multihost_utils.sync_global_devices(f"{name}: connected")
    before = received_bytes()
    multihost_utils.sync_global_devices(f"{name}: counted")
    for _ in range(options.rounds):
        state, _ = strategy.round(state, examples, order)
    jax.block_until_ready(state)
    multihost_utils.sync_global_devices(f"{name}: done")
    counted = (received_bytes() - before) / options.rounds / options.workers
    multihost_utils.sync_global_devices(f"{name}: counted again")

    expected = strategy.bytes_received(options.rounds, options.rounds * options.local_steps)
    expected /= options.rounds
    return {
        "strategy": name,
        "widths": list(options.widths),
        "local_steps": options.local_steps,
        "rounds": options.rounds,
        "expected_bytes": expected,
        "counted_bytes": counted,
        "difference": counted / expected - 1,
    }


def print_table(measured: list[dict[str, Any]]) -> None:
    """Prints one row per strategy."""
    table = Table(title="Bytes that a worker receives per round")
    table.add_column("strategy")
    for column in ("expected (MB)", "counted (MB)", "difference"):
        table.add_column(column, justify="right")
    for row in measured:
        table.add_row(
            row["strategy"],
            f"{row['expected_bytes'] / 1e6:.3f}",
            f"{row['counted_bytes'] / 1e6:.3f}",
            f"{row['difference']:+.2%}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    run(main, WireBytesOptions, __doc__ or "")
