"""Neurons that several workers have: what these have trained is averaged.

With r replicas a parameter is on as many workers as have all its neurons: up to r, or none.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jist.ist.neurons import Axes, unfolded
from jist.ist.subnet import Parts, mean

_LETTERS = "abcdefghijklmnopqrstuvxyz"  # of axes in `einsum`; w is the workers'


def paste_mean(
    params: Any,
    subnets: Any,
    axes: Any,
    parts: Parts,
    weights: Float[Array, " workers"] | None = None,
) -> Any:
    """Puts the trained subnets back; a parameter is the mean over the workers that have it.

    Args:
        params: tree of arrays, the full parameters before the round.
        subnets: the trained subnets [workers, ...].
        axes: the tree that `neuron_axes` returns.
        parts: {layer: i32 [workers, part]}; neurons may stand in several rows.
        weights: as for `jist.ist.paste`.

    Returns:
        The full parameters. What nobody has trained keeps its value.
    """
    workers = len(next(iter(parts.values())))
    present = jnp.ones(workers, bool) if weights is None else weights > 0

    def leaf(array: Array, pieces: Array, axes: Axes) -> Array:
        whole = array.shape
        shape, names = unfolded(whole, axes)
        layers = {axis: name for axis, name in enumerate(names) if name is not None}
        if not layers:
            return mean(pieces, weights)
        array = array.reshape(shape)
        pieces = pieces.reshape(workers, *unfolded(pieces.shape[1:], axes)[0])

        def add(total: Array, own: tuple[Array, Any, Array]) -> tuple[Array, None]:
            piece, rows, there = own
            where = [rows.get(axis, jnp.arange(size)) for axis, size in enumerate(shape)]
            piece = jnp.where(there, piece, 0)
            return total.at[jnp.ix_(*where)].add(piece, mode="drop"), None

        rows = {axis: parts[name] for axis, name in layers.items()}
        total, _ = jax.lax.scan(add, jnp.zeros_like(array), (pieces, rows, present))
        holds = [_holders(parts[name], shape[axis], present) for axis, name in layers.items()]
        count = _count(holds).reshape([n if axis in layers else 1 for axis, n in enumerate(shape)])
        pasted = total / jnp.maximum(count, 1).astype(array.dtype)
        return jnp.where(count > 0, pasted, array).reshape(whole)

    return jax.tree.map(leaf, params, subnets, axes)


def _holders(rows: Array, width: int, present: Bool[Array, " workers"]) -> Array:
    """1 where a worker that is there has a neuron, f32 [workers, width]."""
    marked = jnp.broadcast_to(present[:, None].astype(jnp.float32), rows.shape)
    place = jnp.arange(len(rows))[:, None]
    return jnp.zeros((len(rows), width)).at[place, rows].set(marked, mode="drop")


def _count(holds: list[Array]) -> Array:
    """How many workers have the neurons along all axes."""
    letters = _LETTERS[: len(holds)]
    terms = ",".join(f"w{letter}" for letter in letters)
    return jnp.einsum(f"{terms}->{letters}", *holds, precision="highest")
