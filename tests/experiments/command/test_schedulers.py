"""Processes that SLURM, MPI or Kubernetes start: by their variables, and by real launchers."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from experiments.command import processes, schedulers
from experiments.command.options import ProcessOptions
from experiments.command.rollcall import JoinError

ROOT = pathlib.Path(__file__).parents[3]
STEP = {"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "5000"}
SLURM = STEP | {"SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
MPI_4 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}
POD = {"KUBERNETES_SERVICE_HOST": "k", "JOB_COMPLETION_INDEX": "0"}


@pytest.fixture
def scheduler(monkeypatch):
    """Sets the variables of a scheduler in place of those that there are."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "KUBERNETES_", "JOB_COMPLETION_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "")  # puts it back
    monkeypatch.delenv("JAX_COORDINATOR_PORT")

    def set_all(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "alone"),
        (SLURM | {"SLURM_NTASKS": "1"}, "alone"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, "alone"),  # an interactive shell in an allocation
        ({"SLURM_NTASKS": "4"}, "alone"),  # a batch script outside of srun
        ({"KUBERNETES_SERVICE_HOST": "k"}, "alone"),  # any pod
        (SLURM | {"PMI_SIZE": "4"}, "slurm"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, "slurm"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"} | MPI_4, "ompi"),  # mpirun in such a shell
        (POD, None),
        (MPI_4, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpi4py"),  # Open MPI 5
        ({"PMI_SIZE": "2"}, "mpi4py"),
    ],
)
def test_the_processes_of_a_scheduler_are_found(scheduler, monkeypatch, environment, expected):
    scheduler(environment)
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # kubernetes is installed
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # puts it back
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    monkeypatch.setattr(processes, "_connect_scheduled", lambda _: {})
    monkeypatch.setattr(processes, "Partners", lambda *_: None)
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **k: asked.append((a, k)))
    processes.join(ProcessOptions())
    assert schedulers.scheduled() == (expected != "alone")
    if expected == "alone":
        assert not asked
    else:
        ((given, named),) = asked
        assert given == (None, None, None)
        assert named == {
            "cluster_detection_method": expected,
            "initialization_timeout": 360,
            "heartbeat_timeout_seconds": 180,
        }


def test_steps_of_one_slurm_job_have_ports_of_their_own(scheduler, monkeypatch):
    ports = set()
    for step in ("0", "1", "2"):
        scheduler(SLURM | {"SLURM_STEP_ID": step})
        monkeypatch.delenv("JAX_COORDINATOR_PORT", raising=False)
        schedulers.prepare()
        ports.add(int(os.environ["JAX_COORDINATOR_PORT"]))
    assert len(ports) == 3
    assert all(61440 <= port <= 65535 for port in ports)
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "4711")
    schedulers.prepare()
    assert os.environ["JAX_COORDINATOR_PORT"] == "4711"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            STEP | {"SLURM_PROCID": "3"},
            "SLURM started this process, but SLURM_LOCALID is not set",
        ),
        (POD, "the package kubernetes, which finds the others, is missing"),
        ({"PMI_SIZE": "2"}, "MPI started this process, and the package mpi4py, which finds"),
    ],
)
def test_what_a_scheduler_lacks_is_named(scheduler, monkeypatch, environment, message):
    scheduler(environment)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JoinError, match=message):
        processes.join(ProcessOptions())


def test_a_process_is_called_by_its_number(scheduler):
    assert schedulers.own_name() == "a process of a scheduler's job"
    scheduler(SLURM)
    assert schedulers.own_name() == "process 3 of 4 of a scheduler's job"
    scheduler(MPI_4 | {"OMPI_COMM_WORLD_RANK": "1"})
    assert schedulers.own_name() == "process 1 of 2 of a scheduler's job"


JOIN = """
import jax
from experiments.command import processes
from experiments.command.joining import ProcessOptions

processes.join(ProcessOptions(join_timeout=60))
print("process", jax.process_index(), "of", jax.process_count(), "on", len(jax.devices()))
"""


@pytest.mark.parametrize(
    ("launcher", "ready", "missing"),
    [
        ("srun", "sinfo", "no SLURM that runs: slurm-wlm with munged, slurmctld and slurmd"),
        ("mpirun", "mpirun --version", "no Open MPI: openmpi-bin"),
    ],
)
def test_real_launchers_start_processes_that_join(launcher, ready, missing):
    ready = ready.split()
    if shutil.which(ready[0]) is None or subprocess.run(ready, capture_output=True).returncode:
        pytest.skip(missing)
    options = ["--oversubscribe", "--allow-run-as-root"] if launcher == "mpirun" else ["--overlap"]
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
    found = subprocess.run(
        [launcher, "-n", "2", *options, sys.executable, "-c", JOIN],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert sorted(found.stdout.splitlines()) == [f"process {i} of 2 on 2" for i in (0, 1)]
