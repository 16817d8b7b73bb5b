"""Placement of work and arrays on devices, and how much a device computes at once."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

# Measured on one core and two: with fewer rows XLA's matrix products are slower; with more, the
# intermediate results no longer fit the cache.
CPU_TOKENS_PER_CORE = 500


def place(array: Array | np.ndarray, sharding: Sharding) -> Array:
    """Places an array that is the same in every process on the devices of a sharding."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    # `device_put` would send the array around to check that it is the same everywhere.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def most_that_divide(count: int, number: int) -> int:
    """The greatest divisor of `number` that is at most `count`; `count` is positive."""
    return max(divisor for divisor in range(1, count + 1) if number % divisor == 0)


def batch_mesh(batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh, along one axis named "batch", of the most devices that divide a batch.

    Args:
        batch_size: size B of the batch.
        devices: to choose from; all by default.
    """
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices[: most_that_divide(len(devices), batch_size)]), ("batch",))


def workers_mesh(workers: int, devices: int | None = None) -> Mesh:
    """A mesh for n workers.

    Args:
        workers: number of workers n.
        devices: number of devices D; by default the most that are there and divide n.

    Raises:
        ValueError: no worker, more devices than there are, or than workers, or n is no multiple of
            D.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    available = jax.device_count()
    if devices is None:
        devices = most_that_divide(available, workers)
    if not 1 <= devices <= available:
        raise ValueError(f"devices must be between 1 and the {available} there are, got {devices}")
    if workers % devices:
        raise ValueError(
            f"workers must be a multiple of devices, got {workers} workers on {devices} devices"
        )
    return Mesh(jax.devices()[:devices], ("workers",))


def split_batch(batch_size: int) -> NamedSharding:
    """The sharding of a batch over the most devices of this process that divide it."""
    return NamedSharding(batch_mesh(batch_size, jax.local_devices()), P("batch"))


def at_once(images: int, tokens: int) -> int:
    """How many of the images on a device a Transformer computes at once, one part after the other.

    Args:
        images: images on the device.
        tokens: tokens of each.

    Returns:
        On a CPU the fewest that divide `images` and have `CPU_TOKENS_PER_CORE` tokens for every
        core of the device; elsewhere all.
    """
    if jax.default_backend() != "cpu":
        return images
    divisors = (part for part in range(1, images) if images % part == 0)
    wanted = CPU_TOKENS_PER_CORE * max(1, available_cores() // jax.local_device_count())
    return next((part for part in divisors if part * tokens >= wanted), images)


def available_cores() -> int:
    """How many cores of the CPU this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_bytes(root: pathlib.Path = pathlib.Path("/")) -> int:
    """How much memory this process may use: the machine's, or its control group's if less.

    Args:
        root: of the file system, where Linux lists control groups.
    """
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.exists() else []:
        if line.startswith("0::/"):  # of all controllers, in version 2
            group = root / "sys/fs/cgroup" / line.removeprefix("0::/")
            for directory in (group, *group.parents):
                limit = directory / "memory.max"
                if limit.exists() and limit.read_text().strip().isdigit():
                    found = min(found, int(limit.read_text()))
    return found
