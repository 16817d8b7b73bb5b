"""A node of a cluster that trains with jist: rounds, timed one by one.

Started on every node with a JSON file that says what to train. The code is that of
`experiments.distributed`: the same processes, strategies and order of examples. Nothing is
evaluated here, so that nothing else is timed; `curves` knows the accuracy after every round.
"""

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.network.groups import join
from experiments.network.links import PORT, address, counters
from experiments.network.namespaces import read_counters

PARAMETERS = "parameters.npz"  # those of the first node, where they are compared


class Recorder:
    """Measures what a node does, from a start to an end.

    Attributes:
        rounds: of each, "start" and "end" (seconds of the machine's clock), "busy" (processor
            seconds), "received" and "sent" (bytes at the interface), and what the caller adds.
    """

    def __init__(self) -> None:
        self.rounds: list[dict[str, Any]] = []

    def measure(self, work: Callable[[], dict[str, Any]]) -> None:
        """Runs a round and records it."""
        received, sent = counters(read_counters())
        busy, start = time.process_time(), time.monotonic()
        found = work()
        end, used = time.monotonic(), time.process_time() - busy
        now = counters(read_counters())
        self.rounds.append(
            {"start": start, "end": end, "busy": used}
            | {"received": now[0] - received, "sent": now[1] - sent}
            | found
        )

    def write(self, directory: pathlib.Path, node: int) -> None:
        """Writes `node-I.json`."""
        (directory / f"node-{node}.json").write_text(json.dumps(self.rounds))


def take_share() -> None:
    """Takes the node's share of a core, where there is a control group that gives it."""
    if os.environ["NODE_GROUP"]:
        join(os.environ["NODE_GROUP"])


def train(job: dict[str, Any], node: int) -> Recorder:
    """Trains some rounds together with the other nodes. The first compiles: it is no sample."""
    # After the environment has been set, and not where a node of PyTorch imports this module.
    import jax
    from jax.experimental import multihost_utils
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from experiments.command import processes
    from experiments.command.cpu import keep_freed_memory
    from experiments.command.options import HeadOptions, ProcessOptions, StrategyOptions
    from experiments.network.training import Training
    from jist.placement import place

    keep_freed_memory()
    nodes = job["how"]["workers"]
    coordinator = f"{address(0)}:{PORT}"
    processes.join(ProcessOptions(coordinator=coordinator, num_processes=nodes, process_id=node))
    with np.load(job["examples"]) as file:
        examples = {"x": file["x"], "y": file["y"]}
    training = Training(
        head=HeadOptions(**{**job["head"], "hidden": tuple(job["head"]["hidden"])}),
        how=StrategyOptions(**job["how"]),
        seed=job["seed"],
        classes=job["classes"],
        examples=examples,
    )
    strategy = training.strategy
    state = strategy.init(job["seed"])
    on_device = jax.tree.map(lambda x: place(x, strategy.replicated), examples)
    by_worker = NamedSharding(strategy.mesh, P("workers"))
    recorder = Recorder()

    for number in range(job["rounds"]):
        rows = place(training.order(number), by_worker)

        def work(rows: Any = rows) -> dict[str, Any]:
            nonlocal state
            state, metrics = strategy.round(state, on_device, rows)
            jax.block_until_ready(state)
            return {"loss": float(np.mean(np.asarray(metrics["loss"])))}

        multihost_utils.sync_global_devices(f"round {number}")
        recorder.measure(work)
        if number == 0:
            take_share()
    return recorder


def main(file: str) -> None:
    """Trains and writes what was measured."""
    job, node = json.loads(pathlib.Path(file).read_text()), int(os.environ["NODE"])
    train(job, node).write(pathlib.Path(job["directory"]), node)
    sys.stdout.flush()
    os._exit(0)  # the others may be gone already, and an orderly end would wait for them


if __name__ == "__main__":
    main(sys.argv[1])
