"""Arrays that every process holds, on the devices of all processes."""

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array


def place(array: Array | np.ndarray, sharding: Sharding) -> Array:
    """Lays an array that is the same in every process on the devices of a sharding."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    # `device_put` would send the array around to check that it is the same everywhere.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
