"""What times were measured on: the machine, its packages, its devices, and the code."""

import importlib.util
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from experiments.command.cpu import processor_facts
from experiments.command.errors import UsageError
from jist.placement import available_cores
from jist.store import versions

DEVICES = ("cpu", "gpu")
# Variables on which the devices of JAX depend, and what XLA makes of a program.
VARIABLES = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
PACKAGES = (
    *("jist", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "numpy"),
    *("torch", "transformers"),
)

Result = TypeVar("Result")


def take_device(device: str) -> None:
    """Points JAX and, where it is installed, PyTorch at a device, all its cores included.

    PyTorch's float32 is full float32 on a GPU too; what of jist is raced against it sees to its
    own.

    Raises:
        ValueError: not a device of `DEVICES`, or one of the frameworks has no such device.
    """
    if device not in DEVICES:
        raise UsageError(f"device must be one of {DEVICES}, got {device!r}")
    # By default JAX would take most of a GPU's memory, and leave PyTorch too little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if jax.default_backend() != device:
        raise UsageError(f"device={device}, but JAX has only: {jax.devices()}")
    if not has_torch():
        print("PyTorch is not installed: jist alone is measured")
        return
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # compilation is timed
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise UsageError("device=gpu, but this PyTorch sees none; without PyTorch jist runs alone")
    torch.set_num_threads(available_cores())
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # by default convolutions round to TF32


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def machine() -> dict[str, Any]:
    """Processor, cores, devices, what JAX was told of them, and versions."""
    facts = processor_facts()
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": available_cores(),
        "vector_units": [
            flag for flag in flags if flag.startswith(("avx512f", "avx512_bf", "amx"))
        ],
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "environment": {
            name: _without_paths(os.environ[name]) for name in VARIABLES if name in os.environ
        },
        "versions": {"python": platform.python_version()} | versions(*PACKAGES) | _torch_cuda(),
    }


def _torch_cuda() -> dict[str, str]:
    """The version of CUDA that PyTorch was built for, if any."""
    torch = sys.modules.get("torch")  # imported by `take_device`
    return {"torch_cuda": torch.version.cuda} if torch and torch.version.cuda else {}


def unless_uncompilable(variant: str, attempt: Callable[[], Result]) -> Result | str:
    """What comes of an attempt, or in a line, also printed, why `torch.compile` failed in it.

    Args:
        variant: who attempts.
        attempt: what may compile; it returns no text.
    """
    if not has_torch():
        return attempt()
    from torch._dynamo.exc import TorchDynamoException

    try:
        return attempt()
    except TorchDynamoException as error:  # such as: there is no C++ compiler
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        print(f"{variant} is left out: {reason}")
        return reason


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
