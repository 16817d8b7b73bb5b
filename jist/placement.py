"""Where arrays lie, and how many of them a device takes at once."""

import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

# Measured on one core and two: with fewer rows XLA's matrix products are slower; with more, what
# lies between them leaves the cache.
CPU_TOKENS_PER_CORE = 550


def place(array: Array | np.ndarray, sharding: Sharding) -> Array:
    """Lays an array that is the same in every process on the devices of a sharding."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    # `device_put` would send the array around to check that it is the same everywhere.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def split_batch(batch_size: int) -> Sharding:
    """Over all devices of this process where they divide the batch, else on the first."""
    devices = jax.local_devices()
    if batch_size % len(devices):
        devices = devices[:1]
    return NamedSharding(Mesh(devices, ("batch",)), P("batch"))


def at_once(images: int, tokens: int) -> int:
    """How many of the images on a device a Transformer computes at once, one part after the other.

    Args:
        images: images on the device.
        tokens: tokens of each.

    Returns:
        On a CPU the fewest that divide `images` and have `CPU_TOKENS_PER_CORE` tokens for every
        core; elsewhere all.
    """
    if jax.default_backend() != "cpu":
        return images
    divisors = (part for part in range(1, images) if images % part == 0)
    wanted = CPU_TOKENS_PER_CORE * _cores()
    return next((part for part in divisors if part * tokens >= wanted), images)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not everywhere; those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
