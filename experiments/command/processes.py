"""Joining the processes of a run, on one machine or on many."""

import importlib.util
import os
import re
import sys
import threading
import time
from typing import Any, NoReturn

import jax

from experiments.command.errors import UsageError
from experiments.command.options import ProcessOptions
from experiments.command.rollcall import JoinError, call_roll

# The launcher's process id, in the environment of those that it starts.
LAUNCHER = "JIST_LAUNCHER"
# What JAX reads of SLURM.
OF_SLURM = tuple(f"SLURM_{name}" for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID"))


def join(options: ProcessOptions) -> None:
    """Joins this process to those that train together; call it before any computation.

    A scheduler's processes (SLURM, Kubernetes, MPI) are found by `jax.distributed`. On CPUs arrays
    travel through gloo, on GPUs through NCCL.

    Raises:
        UsageError: some of the three options are given and not all, or they contradict each other.
        JoinError: somebody did not come in time, or a port or a variable is not as it must be.
    """
    given = (options.coordinator, options.num_processes, options.process_id)
    explicit = None not in given
    if not explicit and given != (None, None, None):
        raise UsageError(
            "coordinator, num_processes and process_id must be given together or not at all, "
            f"got {given}"
        )
    if not explicit and not _scheduled():
        return
    if explicit and not re.fullmatch(r".+:\d+", options.coordinator or ""):
        raise UsageError(f"coordinator must be HOST:PORT, got {options.coordinator}")
    _end_with_launcher()
    if explicit:
        _call_roll(*given, options.join_timeout)
    else:
        _check_variables()
        tasks = os.environ.get("SLURM_NTASKS")
        which = f"process {os.environ.get('SLURM_PROCID')} of {tasks}" if tasks else "one process"
        print(
            f"{which} of a scheduler's job, waiting for the others; to run alone: "
            "--coordinator 127.0.0.1:45711 --num-processes 1 --process-id 0",
            file=sys.stderr,
        )
    sys.excepthook = _leave_with_traceback
    # JAX's preemption service would catch SIGTERM, and the process would not end.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Workers are spread over processes, so each has one device where it has no GPUs.
    jax.config.update("jax_num_cpu_devices", 1)
    _initialize(given, "deactivate" if explicit else _detection(), options.join_timeout)


def _call_roll(address: Any, processes: Any, index: Any, timeout: int) -> None:
    if index >= processes:
        raise UsageError(f"process_id must be below num_processes={processes}, got {index}")
    call_roll(address, processes, index, timeout, os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"))


def _initialize(given: tuple[Any, ...], detection: str | None, timeout: int) -> None:
    """Joins through JAX, in a thread: it cannot be interrupted, and the one that waits here can."""
    failed: list[BaseException] = []

    def initialize() -> None:
        try:
            # Longer than ours: when JAX loses patience, it ends the process with a stack trace.
            jax.distributed.initialize(
                *given, cluster_detection_method=detection, initialization_timeout=timeout + 60
            )
        except BaseException as error:  # told by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    deadline = time.monotonic() + timeout
    try:
        thread.start()
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(0.2)
    except KeyboardInterrupt:
        _leave_at_once("interrupted", 130)
    if thread.is_alive():
        _leave_at_once(
            f"error: not all processes of the job came within {timeout} s (--join-timeout)", 1
        )
    if failed:
        raise failed[0]


def _leave_at_once(message: str, code: int) -> NoReturn:
    """Ends this process while JAX still waits in another thread."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)


def _end_with_launcher() -> None:
    """Makes this process end soon after its launcher, which may be killed without a word."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return

    def watch() -> None:
        while os.getppid() == int(launcher):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_variables() -> None:
    """Checks what JAX reads of a scheduler, which would fail without naming it.

    Raises:
        JoinError: a variable or a package is missing.
    """
    present = os.environ.keys()
    if "SLURM_STEP_NODELIST" in present:
        missing = [name for name in OF_SLURM if name not in present]
        if missing:
            raise JoinError(f"SLURM started this process, but {', '.join(missing)} is not set")
    elif "KUBERNETES_SERVICE_HOST" in present and importlib.util.find_spec("kubernetes") is None:
        raise JoinError(
            "Kubernetes started this process, and the package kubernetes, which finds the others, "
            "is missing: pip install 'jax[k8s]', or give --coordinator, --num-processes and "
            "--process-id"
        )


def leave(code: int) -> NoReturn:
    """Ends this process; immediately if others train with it.

    A normal exit would wait for the others, which wait for this process in the middle of a round.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _leave_with_traceback(kind: type[BaseException], error: BaseException, where: Any) -> None:
    sys.__excepthook__(kind, error, where)
    leave(1)


def _scheduled() -> bool:
    """Whether a scheduler started several processes."""
    environment = os.environ
    # In a shell inside an allocation SLURM_NTASKS counts the tasks of the job, the step has one.
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    slurm = "SLURM_STEP_NODELIST" in environment and tasks != "1"
    kubernetes = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    return slurm or kubernetes or _mpi()


def _mpi() -> bool:
    return any(os.environ.get(size, "1") != "1" for size in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))


def _detection() -> str | None:
    """JAX finds SLURM, Kubernetes and Open MPI 4 by itself, and any other MPI through mpi4py."""
    slurm = "SLURM_STEP_NODELIST" in os.environ  # its own MPI sets PMI_SIZE too
    return "mpi4py" if _mpi() and not slurm and "OMPI_MCA_orte_hnp_uri" not in os.environ else None
