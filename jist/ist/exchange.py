"""How pieces travel between devices at the end of a round, inside a `shard_map` over "workers".

Replicated: every device holds the full parameters; the trained pieces are all-gathered and pasted
everywhere. Sharded: every parameter is owned by the device that owns its neuron along the first
named axis; owners send subnetworks to the workers and take them back by all-to-all, so a worker
receives only what it trains (Yuan et al., VLDB 2022, §2.3) and no device ever holds the network.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from jist.ist.neurons import Axes, Plain, folded, layer_of, repeats, unfolded
from jist.ist.overlap import paste_mean
from jist.ist.subnet import Parts, cut, mean, paste
from jist.ist.wire import Wire, send

Weights = Float[Array, " workers"] | None
OWNED = "owned"  # stands for the neurons along a leaf's sharded axis that this device owns


def gather_pieces(
    full: Any,
    pieces: Any,
    axes: Any,
    parts: Parts,
    wire: Wire,
    weights: Weights = None,
    *,
    overlapping: bool = False,
) -> Any:
    """Pastes every worker's trained piece into the full parameters of every device.

    Args:
        full: the full parameters before the round.
        pieces: the trained pieces of this device's workers [local, ...].
        axes: the tree that `neuron_axes` returns.
        parts: {layer: i32 [workers, part]}.
        wire: type in which floats travel, as for `jist.ist.wire.send`.
        weights: of all workers, as for `paste`.
        overlapping: whether neurons are on several workers, whose pieces are then averaged.
    """

    def gather(piece: Array) -> Array:
        # XLA:CPU copies what a device gathers from itself.
        if jax.lax.axis_size("workers") == 1:
            return piece
        return jax.lax.all_gather(piece, "workers", tiled=True)

    def collect(piece: Array) -> Array:
        return send(piece, wire, gather, lead=1)

    put_back = paste_mean if overlapping else paste
    return put_back(full, jax.tree.map(collect, pieces), axes, parts, weights)


def owner_specs(params: Any, axes: Any) -> Any:
    """How parameters are sharded: split by neurons along their first axis that allows it.

    Those of no layer lie on every device.

    Args:
        params: tree of arrays or shapes.
        axes: the tree that `neuron_axes` returns.

    Returns:
        A tree of `PartitionSpec`.

    Raises:
        ValueError: the neurons of a parameter are repeated along each of its axes.
    """

    def spec(_: Any, axes: Axes) -> P:
        axis = sharded_axis(axes)
        if axis is None and any(axes):
            raise ValueError(
                f"exchange='sharded' needs an axis along which each neuron stands once, got {axes}"
            )
        return P() if axis is None else P(*[None] * axis, "workers")

    return jax.tree.map(spec, params, axes)


def check_owners(widths: dict[str, int], devices: int) -> None:
    """Checks that every layer can be split evenly.

    Raises:
        ValueError: the devices do not divide a width.
    """
    for layer, width in widths.items():
        if width % devices:
            raise ValueError(
                f"exchange='sharded' needs widths that the {devices} devices divide, "
                f"got {width} neurons of {layer!r}"
            )


def sort_by_owner(parts: Parts, widths: Mapping[str, int], devices: int) -> dict[str, Array]:
    """Orders each worker's stratified part by owner, with equally many slots for every owner.

    Args:
        parts: {layer: i32 [workers, part]} of a stratified partition.
        widths: {layer: number of neurons}.
        devices: number of devices D; divides the widths and the workers.

    Returns:
        {layer: i32 [workers, D * slots]}: empty slots hold the width, as in `partition`.
    """

    def slot(row: Int[Array, " part"], width: int, slots: int) -> Int[Array, " places"]:
        row = jnp.sort(row)  # padding, which is the width, goes last
        owner = row // (width // devices)
        place = owner * slots + jnp.arange(len(row)) - jnp.searchsorted(owner, owner)
        return jnp.full(devices * slots, width, row.dtype).at[place].set(row, mode="drop")

    return {
        layer: jax.vmap(
            functools.partial(
                slot, width=widths[layer], slots=slots_per_owner(widths[layer], len(rows), devices)
            )
        )(rows)
        for layer, rows in parts.items()
    }


def slots_per_owner(width: int, workers: int, devices: int) -> int:
    """The most neurons of one owner that a stratified partition can assign to one worker.

    A stratified partition cuts the layer into n stretches; an owner has n / D of them, and each
    gives a worker at most a rounded-up n-th of its own. Without rounding that is N / (n D).
    """
    stretch = -(-width // workers)
    return workers // devices * -(-stretch // workers)


def send_out(owned: Any, axes: Any, parts: Parts, devices: int, wire: Wire) -> Any:
    """Sends every worker its subnet.

    Args:
        owned: the parameters that this device owns.
        axes: the tree that `neuron_axes` returns.
        parts: what `sort_by_owner` returns.
        devices: number of devices D.
        wire: type in which floats travel, as for `jist.ist.wire.send`.

    Returns:
        The subnets of this device's workers [local, ...].
    """
    local = len(next(iter(parts.values()))) // devices

    def leaf(array: Array, axes: Axes) -> Array:
        if sharded_axis(axes) is None:
            return jnp.broadcast_to(array, (local, *array.shape))
        array, names, axis = _unfolded(array, axes)
        packed = cut(array, *_owned(array, names, axis, parts, devices))
        packed = packed.reshape(devices, local, *packed.shape[1:])
        came = _all_to_all(packed, wire)
        came = jnp.moveaxis(came, 0, 1 + axis)  # [local, ..., owners, slots, ...]
        shape = list(came.shape[1:])
        shape[axis : 2 + axis] = [shape[axis] * shape[1 + axis]]
        return came.reshape(local, *folded(shape, axes))

    return jax.tree.map(leaf, owned, axes)


def send_back(
    owned: Any,
    subnets: Any,
    axes: Any,
    parts: Parts,
    devices: int,
    wire: Wire,
    weights: Weights = None,
) -> Any:
    """Sends the trained subnetworks back to their owners.

    Args:
        owned: the parameters that this device owns.
        subnets: the trained subnets of this device's workers.
        axes: as for `send_out`.
        parts: the same.
        devices: the same.
        wire: the same.
        weights: of all workers, as for `paste`.

    Returns:
        The parameters that this device owns; those without a named axis are averaged.
    """

    def leaf(whole: Array, pieces: Array, axes: Axes) -> Array:
        if sharded_axis(axes) is None:
            return average(pieces, weights)
        array, names, axis = _unfolded(whole, axes)
        shape = [len(pieces), *unfolded(pieces.shape[1:], axes)[0]]
        shape[1 + axis : 2 + axis] = [devices, shape[1 + axis] // devices]
        packed = jnp.moveaxis(pieces.reshape(shape), 1 + axis, 0)
        came = _all_to_all(packed, wire)
        came = came.reshape(-1, *came.shape[2:])  # [workers, ...]
        pasted = paste(array, came, *_owned(array, names, axis, parts, devices), weights)
        return pasted.reshape(whole.shape)

    return jax.tree.map(leaf, owned, subnets, axes)


def average(pieces: Array, weights: Weights = None) -> Array:
    """The mean over all workers of an array that each has, [local, ...] on every device.

    Counters are not exchanged if all take part: they advance alike on all workers.

    Args:
        pieces: of this device's workers.
        weights: of all workers, as for `paste`.
    """
    floating = jnp.issubdtype(pieces.dtype, jnp.floating)
    if weights is None:
        return jax.lax.pmean(mean(pieces), "workers") if floating else pieces[0]
    if not floating:
        return mean(jax.lax.all_gather(pieces, "workers", tiled=True), weights)
    return jax.lax.psum(mean(pieces, of_device(weights, len(pieces))), "workers")


def of_device(values: Shaped[Array, "workers ..."], local: int) -> Shaped[Array, "{local} ..."]:
    """What belongs to the `local` workers of this device."""
    return jax.lax.dynamic_slice_in_dim(values, jax.lax.axis_index("workers") * local, local)


def sharded_axis(axes: Axes) -> int | None:
    """The first axis that can be split between devices by neurons."""
    named = (number for number, axis in enumerate(axes) if layer_of(axis) is not None)
    return next((number for number in named if repeats(axes[number])[0] == 1), None)


def sharded_neurons(axes: Axes) -> tuple[int, str]:
    """Which axis of the unfolded array is sharded, and whose neurons lie along it."""
    sharded = sharded_axis(axes)
    start = sum(len(entry) if isinstance(entry, tuple) else 1 for entry in axes[:sharded])
    _, names = unfolded((0,) * len(axes), axes)
    axis, layer = next(
        (number, name) for number, name in enumerate(names) if number >= start and name is not None
    )
    return axis, layer


def _unfolded(array: Array, axes: Axes) -> tuple[Array, Plain, int]:
    """An array with an axis for each layer, their names, and which of them is sharded."""
    shape, names = unfolded(array.shape, axes)
    return array.reshape(shape), names, sharded_neurons(axes)[0]


def _owned(
    array: Array, names: Plain, axis: int, parts: Parts, devices: int
) -> tuple[Plain, dict[str, Array]]:
    """Axes and parts with which `cut` and `paste` work on what this device owns."""
    device = jax.lax.axis_index("workers")
    slots = parts[names[axis] or ""].shape[1] // devices
    rows = parts[names[axis] or ""]
    mine = jax.lax.dynamic_slice_in_dim(rows, device * slots, slots, axis=1)
    here = (*names[:axis], OWNED, *names[axis + 1 :])
    return here, {**parts, OWNED: mine - device * array.shape[axis]}


def _all_to_all(packed: Array, wire: Wire) -> Array:
    exchange = functools.partial(
        jax.lax.all_to_all, axis_name="workers", split_axis=0, concat_axis=0
    )
    return send(packed, wire, exchange, lead=2)  # [devices, local, ...]
