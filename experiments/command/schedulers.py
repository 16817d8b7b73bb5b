"""What the environment says of a scheduler that started this process: SLURM, MPI or Kubernetes.

JAX reads the same variables by itself. Here they are checked first, because JAX waits in silence or
fails without naming what is missing, and it is decided who started a process where one scheduler
runs within another.
"""

import importlib.util
import os

from experiments.command.rollcall import JoinError

# What JAX reads of SLURM.
OF_SLURM = tuple(f"SLURM_{name}" for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID"))
OF_KUBERNETES = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"}
LAST_PORT, PORTS = 65535, 2**12  # the range of ports that JAX takes


def scheduled() -> bool:
    """Whether a scheduler started several processes."""
    return _open_mpi() or _slurm() or _other_mpi() or os.environ.keys() >= OF_KUBERNETES


def detection() -> str | None:
    """By which method JAX is to find the others; None where it finds them by itself.

    An interactive shell of SLURM leaves its own variables to the processes that mpirun starts.
    """
    if _open_mpi():
        return "ompi" if "OMPI_MCA_orte_hnp_uri" in os.environ else "mpi4py"  # Open MPI 4 or 5
    if _slurm():
        return "slurm"
    return "mpi4py" if _other_mpi() else None


def own_name() -> str:
    """Which process of a scheduler's job this is, in words."""
    for number, of in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("PMI_RANK", "PMI_SIZE"),
    ):
        if {number, of} <= os.environ.keys():
            return f"process {os.environ[number]} of {os.environ[of]} of a scheduler's job"
    return "a process of a scheduler's job"


def prepare() -> None:
    """Checks what JAX reads, and gives every step of a SLURM job a port of its own.

    Raises:
        JoinError: a variable or a package is missing.
    """
    method = detection()
    if method == "slurm":
        missing = [name for name in OF_SLURM if name not in os.environ]
        if missing:
            raise JoinError(f"SLURM started this process, but {', '.join(missing)} is not set")
        job, step = (os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID"))
        # Two steps of a job at a time; JAX itself goes by the job alone.
        port = LAST_PORT - PORTS + 1 + (int(job) + 521 * int(step)) % PORTS
        os.environ.setdefault("JAX_COORDINATOR_PORT", str(port))
    elif method == "mpi4py":
        _need("mpi4py", "MPI", "mpi4py")
    elif method is None:
        _need("kubernetes", "Kubernetes", "'jax[k8s]'")


def _need(package: str, scheduler: str, install: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise JoinError(
            f"{scheduler} started this process, and the package {package}, which finds the others, "
            f"is missing: pip install {install}, or give --coordinator, --num-processes and "
            "--process-id"
        )


def _slurm() -> bool:
    # In a shell inside an allocation SLURM_NTASKS counts the tasks of the job, the step has one.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))
    return "SLURM_STEP_NODELIST" in os.environ and tasks != "1"


def _open_mpi() -> bool:
    return os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1"


def _other_mpi() -> bool:
    """MPICH and its relatives; SLURM's own MPI sets the same."""
    return os.environ.get("PMI_SIZE", "1") != "1"
