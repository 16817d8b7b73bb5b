"""Settings that make XLA fast on a CPU; they must be made before its first computation."""

import os
import pathlib

import jax

from experiments.command import malloc
from jist.placement import available_cores

# Each device holds its own copy of an encoder, and of the features that a head is trained on.
MOST_DEVICES = 4
# Devices wait for each other at the end of a round; XLA would end the process after 40 s.
PATIENCE_SECONDS = 3600
CPUINFO = pathlib.Path("/proc/cpuinfo")


def make_cores_devices() -> None:
    """Makes each core that this process may use a device of JAX, up to `MOST_DEVICES`.

    Workers then train, and images are encoded, on all cores at once. Otherwise XLA would divide
    each matrix product among the cores, and those of one worker or a few images are too small for
    that. If there are more cores than devices, the devices share them. Nothing is changed if
    `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS` already set the number of devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    jax.config.update("jax_num_cpu_devices", min(available_cores(), MOST_DEVICES))
    if "xla_cpu_collective_call_terminate_timeout_seconds" not in flags:
        patience = f"--xla_cpu_collective_call_terminate_timeout_seconds={PATIENCE_SECONDS}"
        os.environ["XLA_FLAGS"] = f"{flags} {patience}".strip()


def processor_facts() -> dict[str, str]:
    """The last core in /proc/cpuinfo, such as its "model name" and "flags"; empty without one."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def has_matrix_unit() -> bool:
    """Whether this CPU has a unit for matrix products in bfloat16 (AMX); always false off Linux."""
    return "amx_bf16" in processor_facts().get("flags", "").split()


def keep_freed_memory() -> None:
    """Makes steps on the CPU reuse their memory.

    XLA:CPU allocates a program's temporary memory in one piece at every execution. Here such pieces
    stay on the heap, and programs run in the calling thread, because only the main heap can hold
    large pieces. GPUs are not affected.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    malloc.keep_freed()
