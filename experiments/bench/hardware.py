"""The machine that times were measured on: its parts, its packages, its devices."""

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
from typing import Any

import jax

DEVICES = ("cpu", "gpu")


def take_device(device: str) -> None:
    """Points JAX and, where it is installed, PyTorch at a device, all its cores included.

    Raises:
        ValueError: not a device of `DEVICES`, or one of the frameworks has no such device.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {DEVICES}, got {device!r}")
    # By default JAX would take most of a GPU's memory, and leave PyTorch too little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if jax.default_backend() != device:
        raise ValueError(f"device={device}, but JAX has only: {jax.devices()}")
    if not has_torch():
        print("PyTorch is not installed: jist alone is measured")
        return
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # compilation is timed
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise ValueError("device=gpu, but this PyTorch sees none; without PyTorch jist runs alone")
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def machine() -> dict[str, Any]:
    """Processor, cores, device and versions."""
    cpus = pathlib.Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    facts = dict(
        line.replace("\t", "").split(":", 1) for line in lines if ":" in line
    )  # of the last core
    flags = facts.get("flags", "").split()
    packages = ("jist", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")
    return {
        "processor": facts.get("model name", platform.processor()).strip(),
        "cores": len(os.sched_getaffinity(0)),
        "vector_units": [
            flag for flag in flags if flag.startswith(("avx512f", "avx512_bf", "amx"))
        ],
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version()}
        | {
            name: importlib.metadata.version(name)
            for name in packages
            if importlib.util.find_spec(name) is not None
        },
    }
