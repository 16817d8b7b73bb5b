"""The cells of the comparison: a training on a link, timed, and what is read off it."""

import dataclasses
import json
import pathlib
import shutil
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.bench.rounds import compare
from experiments.network.cluster import Cluster, run
from experiments.network.curves import CHECK_ROUNDS, check_losses, read_parameters
from experiments.network.node import PARAMETERS
from experiments.network.training import Training
from experiments.runs.directory import read_json, write_json

JIST, TORCH = "jist", "torch"
# Beside a round that compiles and is no sample, and one whose parameters are compared.
LEAST_ROUNDS = CHECK_ROUNDS + 1


@dataclasses.dataclass(frozen=True)
class Cell:
    """What trains on what.

    Attributes:
        variant: "jist" or "torch".
        strategy: how.
        nodes: number of nodes.
        bandwidth: of each link, as given; "none" for links that nothing holds back.
    """

    variant: str
    strategy: str
    nodes: int
    bandwidth: str

    @property
    def name(self) -> str:
        """Its name on disk."""
        return f"{self.variant}-{self.strategy}-{self.nodes}-{self.bandwidth}"


def measure(
    cell: Cell,
    cluster: Cluster,
    training: Training,
    curve: dict[str, Any],
    directory: pathlib.Path,
    *,
    most_rounds: int | None,
) -> dict[str, Any]:
    """Trains on the cluster, or returns what an earlier call has measured.

    Args:
        cell: what trains on what.
        cluster: the nodes and their links.
        training: what is trained.
        curve: what `curves.curve` returns of it.
        directory: of the run; holds `examples.npz`, `curves/` and `cells/`.
        most_rounds: rounds that are timed at most; all of the curve by default.

    Raises:
        RuntimeError: as `cluster.run`, or the nodes do not train what the curve trains.
    """
    file = directory / "cells" / f"{cell.name}.json"
    if file.exists():
        return read_json(file)
    work = directory / "work" / cell.name
    work.mkdir(parents=True, exist_ok=True)
    rounds = max(LEAST_ROUNDS, min(most_rounds or len(curve["losses"]), len(curve["losses"])))
    job: dict[str, Any] = {
        "examples": str(directory / "examples.npz"),
        "directory": str(work),
        "rounds": rounds,
    }
    kept = directory / "curves" / f"{cell.strategy}-{cell.nodes}"
    if cell.variant == JIST:
        module = "experiments.network.node"
        job |= {
            "head": dataclasses.asdict(training.head),
            "how": dataclasses.asdict(training.how),
            "seed": training.seed,
            "classes": training.classes,
        }
    else:
        module = "experiments.network.torch_node"
        _write_start(training, rounds, kept, work / "start.npz")
        job |= {
            "start": str(work / "start.npz"),
            "strategy": cell.strategy,
            "nodes": cell.nodes,
            "learning_rate": training.head.learning_rate,
            "check_rounds": CHECK_ROUNDS,
        }
    (work / "job.json").write_text(json.dumps(job))
    found = run(cluster, [sys.executable, "-m", module, str(work / "job.json")], work)
    timed = [read_json_list(work / f"node-{node}.json") for node in range(cell.nodes)]
    losses = [float(np.mean([own["loss"] for own in nodes])) for nodes in zip(*timed, strict=True)]
    apart: dict[str, Any] = {"loss": check_losses(curve["losses"], losses, cell.name)}
    if cell.variant == TORCH:
        with np.load(work / PARAMETERS) as saved:
            theirs = [*saved.values()]
        ours, start = read_parameters(kept, "after"), read_parameters(kept, "start")
        loss = curve["losses"][CHECK_ROUNDS - 1]
        apart = compare(cell.name, (loss, ours), (losses[CHECK_ROUNDS - 1], theirs), start)
    result = {
        **dataclasses.asdict(cell),
        "delay_s": cluster.link.delay,
        "k": cluster.k,
        **found,
        "differences": apart,
        **merged(timed, cluster.k),
        "losses": losses,
    }
    file.parent.mkdir(exist_ok=True)
    write_json(file, result)
    shutil.rmtree(work)
    return result


def read_json_list(file: pathlib.Path) -> list[dict[str, Any]]:
    """A JSON list of objects."""
    return json.loads(file.read_text())


def merged(nodes: Sequence[Sequence[dict[str, Any]]], k: float) -> dict[str, Any]:
    """What the nodes measured, put together and undilated.

    Args:
        nodes: of each node, its rounds as `node.Recorder` has them.
        k: time dilation.

    Returns:
        "seconds" of every round, from the first node's start to the last one's end; and of every
        round, for each node, "computing" (processor seconds) and "waiting" (the others), "received"
        and "sent" (bytes at the interface).
    """
    rounds = [*zip(*nodes, strict=True)]
    seconds = [
        (max(own["end"] for own in each) - min(own["start"] for own in each)) / k for each in rounds
    ]
    computing = [[own["busy"] for own in each] for each in rounds]
    return {
        "seconds": seconds,
        "computing": computing,
        "waiting": [
            [max(0.0, whole - busy) for busy in own]
            for whole, own in zip(seconds, computing, strict=True)
        ],
        **{name: [[own[name] for own in each] for each in rounds] for name in ("received", "sent")},
    }


def typical(cell: dict[str, Any], name: str = "seconds") -> float:
    """The median over all rounds but the first, which compiles; of a list, the nodes' mean."""
    rounds = cell[name][1:]
    return statistics.median(float(np.mean(own)) for own in rounds)


def times(cell: dict[str, Any], rounds: int) -> list[float]:
    """Seconds after each of some rounds.

    The first counts as a typical one, and so do those that were not timed.
    """
    usual = typical(cell)
    seconds = [usual, *cell["seconds"][1:rounds]]
    seconds += [usual] * (rounds - len(seconds))
    return [float(total) for total in np.cumsum(seconds)]


def seconds_to(
    target: float, accuracies: Sequence[float], elapsed: Sequence[float]
) -> float | None:
    """When an accuracy is first reached; None if it never is."""
    return next((t for a, t in zip(accuracies, elapsed, strict=True) if a >= target), None)


def _write_start(training: Training, rounds: int, kept: pathlib.Path, file: pathlib.Path) -> None:
    """What PyTorch starts with: initial values, orders and partitions of jist's own rounds."""
    start = {f"start{i}": array for i, array in enumerate(read_parameters(kept, "start"))}
    orders = np.stack([training.order(number) for number in range(rounds)])
    drawn = training.partitions(rounds)
    parts = {f"parts{i}": np.stack([of[i] for of in drawn]) for i in range(len(drawn[0]))}
    np.savez(file, allow_pickle=False, orders=orders, **start, **parts)
