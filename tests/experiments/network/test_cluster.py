"""A real cluster of two nodes, where the system allows one."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.command.options import HeadOptions, StrategyOptions
from experiments.network import cells, cluster, curves, groups, linkcheck, namespaces
from experiments.network.links import Link
from experiments.network.training import Training

ROOT = pathlib.Path(__file__).parents[3]
REASON = namespaces.refusal()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(autouse=True)
def our_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")  # one device per process


def test_nodes_train_what_one_process_trains_over_links_that_reach_their_rate(tmp_path):
    generator = np.random.default_rng(0)
    examples = {
        "x": generator.standard_normal((64, 12), np.float32),
        "y": generator.integers(0, 3, 64).astype(np.int32),
    }
    training = Training(
        head=HeadOptions(hidden=(8,), optimizer="sgd", batch_size=4, epochs=4),
        how=StrategyOptions(
            strategy="ist", workers=2, local_steps=4, partition="stratified", exchange="sharded"
        ),
        seed=0,
        classes=3,
        examples=examples,
    )
    np.savez(tmp_path / "examples.npz", **examples)
    file = tmp_path / "curves" / "ist-2.json"
    curve = curves.curve(training, examples, 1.1, file)
    assert len(curve["losses"]) == len(curve["accuracies"]) == 8
    nodes = cluster.Cluster(nodes=2, link=Link(50e6))
    cell = cells.Cell("jist", "ist", 2, "50mbit")
    found = cells.measure(cell, nodes, training, curve, tmp_path, most_rounds=4)
    assert len(found["seconds"]) == 4
    assert found["losses"] == pytest.approx(curve["losses"][:4], rel=1e-4)
    assert linkcheck.wrong(found["checked_rates"], 50e6) is None
    # At the interface there are headers besides.
    assert cells.typical(found, "received") > curve["bytes_received"]
    again = cells.measure(cell, nodes, training, curve, tmp_path, most_rounds=4)
    assert again == found


def test_a_node_that_fails_ends_the_others_and_is_named(tmp_path):
    command = ["sh", "-c", 'test $NODE = 0 && sleep 60; echo "out of luck"; exit 3']
    with pytest.raises(RuntimeError, match="node 1 failed: out of luck"):
        cluster.run(cluster.Cluster(nodes=2, link=Link(float("inf"))), command, tmp_path)


@pytest.mark.skipif(groups.controller() is None, reason="no control groups")
def test_what_a_kill_leaves_the_next_run_removes(tmp_path):
    """Namespaces, interfaces and processes end with the program; control groups stay behind."""
    body = (
        "import pathlib, sys; from experiments.network.cluster import *;"
        "run(Cluster(nodes=2, link=Link(float('inf')), k=2.0),"
        " ['sh', '-c', 'echo here; exec sleep 987'], pathlib.Path(sys.argv[1]))"
    )
    child = subprocess.Popen([sys.executable, "-c", body, str(tmp_path)])
    logs = [tmp_path / f"node-{node}.log" for node in range(2)]
    deadline = time.monotonic() + 60
    while not all(log.exists() and "here" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    left = groups.controller()[0] / f"{groups.PREFIX}{child.pid}"
    limit = groups.quota(2.0)
    if (left / "node0/cpu.cfs_quota_us").exists():
        assert int((left / "node0/cpu.cfs_quota_us").read_text()) == limit[0]
    running = [int(pid) for pid in (left / "starting/cgroup.procs").read_text().split()]
    assert running
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in running):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert left.exists()
    cluster.run(cluster.Cluster(nodes=2, link=Link(float("inf"))), ["true"], tmp_path)
    assert not left.exists()
