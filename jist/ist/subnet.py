"""Cutting subnets out of a tree of parameters, and pasting them back.

A parameter belongs to a subnet iff all its neurons do (Yuan et al., VLDB 2022, §2.1); one that lies
along no neurons belongs to all of them. Works on any tree of arrays with the tree of axes beside
it: parameters, gradients, the parameter-shaped part of an optimiser's state.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jist.ist.neurons import Axes, folded, unfolded

Parts = Mapping[str, Int[Array, "_ _"]]  # {layer: [workers, part]}


def cut(params: Any, axes: Any, parts: Parts) -> Any:
    """Takes every worker's subnet out of the full parameters.

    Args:
        params: tree of arrays.
        axes: the tree that `neuron_axes` returns.
        parts: {layer: i32 [workers, part]}, the neurons of each worker; indices beyond the layer
            are padding and give zeros.

    Returns:
        The tree with a leading [workers] axis on every leaf and the narrower width along every
        named axis. Leaves without a named axis are repeated for each worker.
    """
    workers = len(next(iter(parts.values())))

    def one(part: Mapping[str, Array]) -> Any:
        # Once for all parameters: what compiles a round then has less to read.
        held = functools.cache(lambda name, width: part[name] < width)

        def leaf(array: Array, axes: Axes) -> Array:
            shape, names = unfolded(array.shape, axes)
            piece = array.reshape(shape)
            for axis, name in enumerate(names):
                if name is not None:
                    there = _along(held(name, shape[axis]), axis, len(shape))
                    piece = jnp.where(there, take(piece, part[name], axis), 0)
            return piece.reshape(folded(piece.shape, axes))

        return jax.tree.map(leaf, params, axes)

    return jax.vmap(one, axis_size=workers)(dict(parts))


def paste(
    params: Any,
    subnets: Any,
    axes: Any,
    parts: Parts,
    weights: Float[Array, " workers"] | None = None,
) -> Any:
    """Puts the trained subnets back into the full parameters.

    Args:
        params: tree of arrays, the full parameters before the round: parameters between neurons of
            different workers keep their value.
        subnets: the tree that `cut` returned, trained.
        axes: as for `cut`.
        parts: as for `cut`.
        weights: of the workers, summing to 1, in averages; where the weight is 0 a worker took no
            part: its neurons keep their values. By default all weigh alike.

    Returns:
        The full parameters; leaves without a named axis are averaged over the workers.
    """
    if weights is not None:
        parts = {name: _of_those_present(rows, weights) for name, rows in parts.items()}

    @functools.cache  # once for all parameters, as in `cut`
    def lies(name: str, width: int) -> tuple[Array, Array, Array]:
        slots = _slots(parts[name], width)
        return slots, *jnp.divmod(slots, parts[name].shape[1])

    def leaf(array: Array, pieces: Array, axes: Axes) -> Array:
        whole = array.shape
        shape, names = unfolded(whole, axes)
        array = array.reshape(shape)
        pieces = pieces.reshape(len(pieces), *unfolded(pieces.shape[1:], axes)[0])
        layers = {axis: name for axis, name in enumerate(names) if name is not None}
        if not layers:
            return mean(pieces, weights)
        (first, name), *others = layers.items()
        slots, worker, _ = lies(name, array.shape[first])
        pasted = take(side_by_side(pieces, first), slots, first)
        trained: Any = True
        if weights is not None:  # nobody who is there has a neuron whose slot is beyond all others
            trained = _along(slots < parts[name].size, first, array.ndim)
        for axis, name in others:
            _, other_worker, place = lies(name, array.shape[axis])
            pasted = take(pasted, place, axis)
            trained &= _along(worker, first, array.ndim) == _along(other_worker, axis, array.ndim)
        pasted = pasted if trained is True else jnp.where(trained, pasted, array)
        return pasted.reshape(whole)

    return jax.tree.map(leaf, params, subnets, axes)


def take(array: Array, index: Int[Array, " part"], axis: int) -> Array:
    """What lies at `index` along an axis; indices beyond it read its last entry.

    The axes up to that one are read as one, so that every compiler lays the result out row by row:
    XLA:CPU gathers along a later axis into a transposed result and turns that around, which took
    ten times as long where a matrix is larger than the caches.
    """
    if math.prod(array.shape[: axis + 1]) > jnp.iinfo(index.dtype).max:
        return jnp.take(array, index, axis=axis, mode="clip")
    if axis == 0:
        return jnp.take(array, index, axis=0, mode="clip")
    before, width, after = array.shape[:axis], array.shape[axis], array.shape[axis + 1 :]
    starts = width * jnp.arange(math.prod(before), dtype=index.dtype)
    rows = starts[:, None] + jnp.minimum(index, width - 1)
    taken = jnp.take(array.reshape(-1, *after), rows, axis=0, mode="clip")
    return taken.reshape(*before, len(index), *after)


def _slots(rows: Int[Array, "workers part"], width: int) -> Int[Array, " {width}"]:
    """The slot of each neuron, worker * part + place; beyond all slots where nobody has it.

    Reading every parameter from its slot is on a CPU twice as fast as writing the pieces over the
    old parameters.
    """
    slots = jnp.arange(rows.size, dtype=rows.dtype)
    return jnp.full(width, rows.size, rows.dtype).at[rows.ravel()].set(slots, mode="drop")


def _of_those_present(
    rows: Int[Array, "workers part"], weights: Float[Array, " workers"]
) -> Int[Array, "workers part"]:
    """The neurons of workers that take part; of the others an index beyond every layer."""
    return jnp.where(weights[:, None] > 0, rows, jnp.iinfo(rows.dtype).max)


def mean(pieces: Array, weights: Float[Array, " workers"] | None = None) -> Array:
    """The mean over the workers of an array that each has, [workers, ...].

    Counters, which advance alike on all that take part, have no mean of their own type: they are
    those of one of these workers.
    """
    if not jnp.issubdtype(pieces.dtype, jnp.floating):
        return pieces[0 if weights is None else jnp.argmax(weights)]
    if weights is None:
        return jnp.mean(pieces, axis=0)
    return jnp.sum(pieces * _along(weights.astype(pieces.dtype), 0, pieces.ndim), axis=0)


def side_by_side(pieces: Array, axis: int) -> Array:
    """[workers, ..., part, ...] -> [..., workers * part, ...]."""
    joined = jnp.moveaxis(pieces, 0, axis)
    return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])


def _along(values: Shaped[Array, " width"], axis: int, ndim: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def subnet_shapes(params: Any, axes: Any, part_widths: Mapping[str, int]) -> Any:
    """The shapes of the widest subnet, to which the others are padded.

    Args:
        params: tree of arrays or of their shapes.
        axes: the tree that `neuron_axes` returns.
        part_widths: {layer: neurons in the widest subnet} (`Assignment`).

    Returns:
        A tree of `jax.ShapeDtypeStruct`.
    """

    def leaf(array: Any, axes: Axes) -> jax.ShapeDtypeStruct:
        shape = [
            size if name is None else part_widths[name]
            for size, name in zip(*unfolded(array.shape, axes), strict=True)
        ]
        return jax.ShapeDtypeStruct(folded(shape, axes), array.dtype)

    return jax.tree.map(leaf, params, axes)
