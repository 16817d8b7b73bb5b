"""Joining the processes of a run, on one machine or on many."""

import os
import re
import sys
from typing import Any, NoReturn

import jax

from experiments.command.errors import UsageError
from experiments.command.options import ProcessOptions


def join(options: ProcessOptions) -> None:
    """Joins this process to those that train together; call it before any computation.

    A scheduler's processes (SLURM, Kubernetes, MPI) are found by `jax.distributed`. On CPUs arrays
    travel through gloo, on GPUs through NCCL.

    Raises:
        ValueError: some of the three options are given and not all.
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
    if not explicit:
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
    jax.distributed.initialize(
        *given, cluster_detection_method="deactivate" if explicit else _detection()
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
