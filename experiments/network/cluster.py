"""The cluster, from inside its namespaces: links, their check, and the nodes' processes.

Started by `run`, which stands outside, with one JSON file that says what to do. It imports neither
JAX nor PyTorch, so that it is there at once.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.network import linkcheck
from experiments.network.groups import Groups, join
from experiments.network.links import Link, hosts, set_up
from experiments.network.namespaces import PREPARE, inside, on_node

CHECKS = 4  # of the links, until one succeeds: another program may have disturbed the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes on this machine.

    Attributes:
        nodes: number of nodes.
        link: each node's link, undilated.
        k: time dilation: all takes k times as long, and a node has 1/k of a core.
    """

    nodes: int
    link: Link
    k: float = 1.0


def run(cluster: Cluster, command: Sequence[str], directory: pathlib.Path) -> dict[str, Any]:
    """Runs a command on every node and returns what the link check found.

    Every process finds in its environment NODE, its number, and NODE_GROUP, the control group to
    join once it is warm; empty if there is none.

    Args:
        cluster: the nodes.
        command: what each of them runs.
        directory: where the plan is written, and `node-I.log`, what each process printed.

    Returns:
        {"checked_rates": bits a second that each node received, dilated, none of links without a
        rate; "held": whether control groups held the processors}.

    Raises:
        RuntimeError: a link does not reach its rate, a process failed, or nodes are to have parts
            of cores and control groups cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        groups = None
        try:
            groups = stack.enter_context(Groups(cluster.nodes, cluster.k))
        except PermissionError as error:
            if cluster.k > 1:
                raise RuntimeError(
                    f"{cluster.nodes} nodes need 1/{cluster.k:g} of a core each, and {error}: take "
                    "fewer nodes, or root"
                ) from None
        plan = {
            "nodes": cluster.nodes,
            "rate": cluster.link.rate,
            "delay": cluster.link.delay,
            "k": cluster.k,
            "command": [*command],
            "directory": str(directory),
            "starting": str(groups.starting) if groups else "",
            "groups": [str(groups.of(node)) if groups else "" for node in range(cluster.nodes)],
        }
        file = directory / "cluster.json"
        file.write_text(json.dumps(plan))
        start = [sys.executable, "-m", "experiments.network.cluster", str(file)]
        script = PREPARE + 'exec "$@"'
        child = subprocess.Popen(
            inside(["sh", "-c", script, "sh", *start]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, error = child.communicate()
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            raise RuntimeError(error.strip().splitlines()[-1] if error.strip() else "no cluster")
        return json.loads(out.splitlines()[-1]) | {"held": groups is not None}


def main(file: str) -> int:
    """Sets up, checks, starts and waits; returns the exit code."""
    plan = json.loads(pathlib.Path(file).read_text())
    if plan["starting"]:
        join(plan["starting"])
    link = Link(plan["rate"], plan["delay"]).dilated(plan["k"])
    names = pathlib.Path("/run/hosts")  # in a file system of our own, as everything below /run
    names.write_text(hosts(plan["nodes"]))
    naming = ["mount", "--bind", str(names), "/etc/hosts"]
    for command in (naming, *set_up(plan["nodes"], link)):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)}: {done.stderr.strip()}", file=sys.stderr)
            return 1
    rates: list[float] = []
    shaped = link.rate != float("inf")  # else there is no rate to be reached
    for left in reversed(range(CHECKS if shaped else 0)):
        rates = check_links(plan["nodes"])
        problem = linkcheck.wrong(rates, link.rate)
        if problem is None:
            break
        if not left:
            print(problem, file=sys.stderr)
            return 1
    failed = run_nodes(plan)
    if failed is not None:
        log = pathlib.Path(plan["directory"]) / f"node-{failed}.log"
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        print(f"node {failed} failed: {last[-1] if last else 'no output'} ({log})", file=sys.stderr)
        return 1
    print(json.dumps({"checked_rates": rates}))
    return 0


def check_links(nodes: int) -> list[float]:
    """The rates at which the nodes send to each other, in a ring and all at once."""
    module = [sys.executable, "-m", "experiments.network.linkcheck"]
    children = [
        subprocess.Popen(
            on_node(node, [*module, str(node), str(nodes)]), stdout=subprocess.PIPE, text=True
        )
        for node in range(nodes)
    ]
    return [float(child.communicate()[0] or 0.0) for child in children]


def run_nodes(plan: dict[str, Any]) -> int | None:
    """Runs the command on all nodes; returns the first that failed, the others being ended."""
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for node, group in enumerate(plan["groups"]):
        own = ["taskset", "-c", str(cores[node % len(cores)]), *plan["command"]]
        log = (pathlib.Path(plan["directory"]) / f"node-{node}.log").open("w")
        environment = {**os.environ, "NODE": str(node), "NODE_GROUP": group}
        children.append(
            subprocess.Popen(on_node(node, own), env=environment, stdout=log, stderr=log)
        )
        log.close()
    while True:
        codes = [child.poll() for child in children]
        failed = next((node for node, code in enumerate(codes) if code), None)
        if failed is not None:
            return failed
        if None not in codes:
            return None
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
