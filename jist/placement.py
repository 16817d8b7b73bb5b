"""Where arrays lie: on the devices of all processes, or of this one."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array


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
