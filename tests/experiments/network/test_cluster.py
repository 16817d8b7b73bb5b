"""A real cluster of two nodes, where the system allows one."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from shown import ROOT, commands_of, run_with_others

from experiments.bench.hardware import has_torch
from experiments.network import cells, cluster, groups, linkcheck, namespaces
from experiments.network.links import Link

REASON = namespaces.refusal()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


SHORTER = (
    "--dataset features:examples.npz --mask-ratio None --preset None --hidden 8 --batch-size 4"
    " --epochs 4 --local-steps 4 --nodes 2 --bandwidth 50mbit --delay 0ms --targets 1"
    " --timed-rounds 4 --strategies ist"
)


@pytest.fixture(autouse=True)
def our_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run: of jist by the first command, with PyTorch beside it by the other."""
    root = tmp_path_factory.mktemp("network")
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 80).astype(np.int32)
    np.savez(root / "examples.npz", x=generator.standard_normal((80, 12), np.float32), y=y)
    first, other = sorted(commands_of("network"), key=lambda words: "--torch" in words)
    run_dir = root / "run"
    words = [*SHORTER.split(), "--run-dir", str(run_dir)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_with_others("network", [*first, *words], patch)
        before = {file: file.read_bytes() for file in run_dir.glob("cells/*.json")}
        assert len(before) == 2  # without shaping and with it
        if has_torch():
            run_with_others("network", [*other, *words, "--torch", "ist"], patch)
    assert {file: file.read_bytes() for file in before} == before  # not measured again
    return run_dir


def test_nodes_train_what_one_process_trains_over_links_that_reach_their_rate(run):
    results = json.loads((run / "results.json").read_text())
    curve = results["curves"]["ist-2"]
    assert len(curve["losses"]) == len(curve["accuracies"]) == 8
    of = {(cell["variant"], cell["bandwidth"]): cell for cell in results["cells"]}
    assert of.keys() == {("jist", "none"), ("jist", "50mbit")} | (
        {("torch", "50mbit")} if has_torch() else set()
    )
    for (_, bandwidth), cell in of.items():
        if bandwidth == "50mbit":
            assert len(cell["seconds"]) == 4
            assert linkcheck.wrong(cell["checked_rates"], 50e6) is None
            # At the interface there are headers besides.
            assert cells.typical(cell, "received") > curve["bytes_received"]
        known = curve["losses"][: len(cell["losses"])]
        assert cell["losses"] == pytest.approx(known, rel=1e-4)
    for name in ("figure-2.png", "map.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


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
