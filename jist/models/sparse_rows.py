"""The product of sparse rows and a matrix, at the cost of the rows' entries.

Rows come padded, as a batch has to be of one shape, and most of the padding is far from the longest
row. So the entries are first put together, then taken a block at a time, as many blocks as there
are entries in this batch: the number of steps is no constant of the program.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCK = 512  # entries; a block of the matrix's rows stays in a cache


@jax.custom_vjp
def sparse_product(
    indices: Int[Array, "batch longest"],
    values: Float[Array, "batch longest"],
    matrix: Float[Array, "features width"],
) -> Float[Array, "batch width"]:
    """Computes x W for sparse rows x: in every row the sum over its entries of v W[i].

    Differentiable by W alone: examples have no gradient.

    Args:
        indices: features of the entries, in [0, F).
        values: their values; 0 where a row is padded.
        matrix: W [F, width].

    >>> x = jnp.array([[2, 0, 0], [1, 0, 0]]), jnp.array([[3.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    >>> sparse_product(*x, jnp.array([[1.0], [10.0], [100.0]])).tolist()
    [[301.0], [10.0]]
    """
    return _forward(indices, values, matrix)[0]


def _forward(indices: Array, values: Array, matrix: Array) -> tuple[Array, tuple[Array, ...]]:
    entries = _entries(indices, values)

    def add(block: Array, sums: Array) -> Array:
        feature, value, row = _block(entries, block)
        return sums.at[row].add(matrix.at[feature].get(mode="clip") * value[:, None], mode="drop")

    sums = jnp.zeros((len(indices), matrix.shape[1]), matrix.dtype)
    # The last one tells the number of features: it has no memory of its own.
    return _for_blocks(entries, add, sums), (*entries, matrix[:, :0])


def _gradients(saved: tuple[Array, ...], dy: Array) -> tuple[None, None, Array]:
    *entries, shape = saved

    def add(block: Array, gradient: Array) -> Array:
        feature, value, row = _block(entries, block)
        return gradient.at[feature].add(
            dy.at[row].get(mode="clip") * value[:, None].astype(dy.dtype), mode="drop"
        )

    gradient = jnp.zeros((len(shape), dy.shape[1]), shape.dtype)
    return None, None, _for_blocks(entries, add, gradient)


sparse_product.defvjp(_forward, _gradients)


def _entries(indices: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    """Features, values and rows of the entries, padded to whole blocks; and how many there are."""
    batch, longest = indices.shape
    size = -(-batch * longest // BLOCK) * BLOCK
    held = (values != 0).ravel()
    number = jnp.sum(held, dtype=jnp.int32)
    place = jnp.where(held, jnp.cumsum(held, dtype=jnp.int32) - 1, size)
    every = jnp.arange(batch * longest, dtype=jnp.int32)
    source = jnp.zeros(size, jnp.int32).at[place].set(every, mode="drop")
    row = jnp.where(jnp.arange(size) < number, source // longest, batch)  # dropped
    value = jnp.where(row < batch, values.ravel()[source], 0)
    return indices.ravel()[source], value, row, number


def _block(entries: tuple[Array, ...] | list[Array], number: Array) -> tuple[Array, ...]:
    return tuple(
        jax.lax.dynamic_slice_in_dim(array, number * BLOCK, BLOCK) for array in entries[:3]
    )


def _for_blocks(
    entries: tuple[Array, ...] | list[Array], add: Callable[[Array, Array], Array], start: Array
) -> Array:
    return jax.lax.fori_loop(0, -(-entries[3] // BLOCK), add, start)
