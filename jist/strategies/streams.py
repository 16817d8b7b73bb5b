"""Random streams of a model (Dropout): new numbers for every worker in every step.

A model's streams are arrays of keys among its variables. Here they are drawn from the state's key,
the round, the worker and the step, so that they do not depend on the number of devices, and a
training that is resumed sees the same numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

# Folded into the state's key first: rounds, which partitions are drawn from, never get this far.
_STREAMS = 2**32 - 1


def has_streams(rest: Any) -> bool:
    """Whether there are random streams among a model's variables."""
    return any(map(_is_stream, jax.tree.leaves(rest)))


def worker_keys(key: PRNGKeyArray, round_number: Array, local: int) -> Key[Array, " local"]:
    """A key for each worker of this device, inside a `shard_map` over "workers".

    Args:
        key: of the state.
        round_number: number of the round, i32 [].
        local: workers of this device.

    Returns:
        Keys [local].
    """
    of_round = jax.random.fold_in(jax.random.fold_in(key, _STREAMS), round_number)
    first = jax.lax.axis_index("workers") * local
    return jax.vmap(lambda worker: jax.random.fold_in(of_round, worker))(first + jnp.arange(local))


def step_keys(key: PRNGKeyArray, steps: int) -> Key[Array, " steps"]:
    """A key for each of a worker's steps [steps]; of a shorter round they are the first ones."""
    return jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(steps))


def with_streams(rest: Any, key: PRNGKeyArray) -> Any:
    """A model's variables with streams that are drawn from a key.

    Args:
        rest: the variables that are not parameters.
        key: of a worker's step.
    """
    leaves, structure = jax.tree.flatten(rest)
    drawn = [
        jax.random.split(jax.random.fold_in(key, number), leaf.shape) if _is_stream(leaf) else leaf
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def _is_stream(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
