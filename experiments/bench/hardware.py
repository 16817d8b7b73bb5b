"""What times were measured on: the machine, its packages, its devices, and the code."""

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import jax

from experiments.cpu import processor_facts

DEVICES = ("cpu", "gpu")
# Variables on which the devices of JAX depend, and what XLA makes of a program.
VARIABLES = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")


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
    """Processor, cores, devices, what JAX was told of them, and versions."""
    facts = processor_facts()
    flags = facts.get("flags", "").split()
    packages = ("jist", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "vector_units": [
            flag for flag in flags if flag.startswith(("avx512f", "avx512_bf", "amx"))
        ],
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "environment": {
            name: _without_paths(os.environ[name]) for name in VARIABLES if name in os.environ
        },
        "versions": {"python": platform.python_version()}
        | {
            name: importlib.metadata.version(name)
            for name in packages
            if importlib.util.find_spec(name) is not None
        },
    }


def _without_paths(flags: str) -> str:
    return re.sub(r"[^\s=]*/\S*", "PATH", flags)


def commit() -> str | None:
    """The commit of this code, as "1ff309d" or "1ff309d, modified"; None if it is no checkout."""
    file = pathlib.Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # it may be installed inside another checkout
        changed = git("status", "--porcelain", "--untracked-files=all", "--", ":/*.py")
        return git("rev-parse", "--short", "HEAD") + (", modified" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
