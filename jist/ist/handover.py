"""Neurons that are sent straight on to their next worker, inside a `shard_map` over "workers".

What belongs to the neurons of one layer alone (the kernels of the first and the last layer, and
biases) lies with the worker that trained it last, slot by slot, and is sent from there to the
worker that trains it next: (n - 1)/n of it in a round, half of what a sharded exchange receives.
What lies between the neurons of two layers can only be trained where both are, which most of it is
not in a round; it stays with its owners, who send it out and take it back (`jist.ist.exchange`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jist.ist.crossed import Order
from jist.ist.exchange import of_device, send_back, send_out, sharded_axis, sharded_neurons
from jist.ist.neurons import Axes, folded, unfolded
from jist.ist.subnet import Parts, side_by_side, take
from jist.ist.wire import Wire


def goes_along(axes: Axes) -> bool:
    """Whether an array belongs to the neurons of one layer, and can go wherever they go."""
    _, names = unfolded((0,) * len(axes), axes)
    return sharded_axis(axes) is not None and sum(name is not None for name in names) == 1


def hand_over(held: Any, axes: Any, slots: Parts, neurons: Parts, devices: int, wire: Wire) -> Any:
    """Brings every worker its subnet.

    Args:
        held: what this device holds of the parameters: of its workers' neurons in their slots, or
            of those that it owns.
        axes: the tree that `neuron_axes` returns.
        slots: {layer: i32 [workers, part]} that `jist.ist.crossed.draw` returns.
        neurons: the neurons in these slots, likewise.
        devices: number of devices D.
        wire: type in which floats travel, as for `jist.ist.wire.send`.

    Returns:
        The subnets of this device's workers [local, ...].
    """

    def leaf(array: Array, axes: Axes) -> Array:
        if sharded_axis(axes) is None or goes_along(axes):
            return send_out(array, axes, slots, devices, wire)
        axis, layer = sharded_neurons(axes)
        by_owner, places = _by_owner(neurons, layer)
        came = send_out(array, axes, by_owner, devices, wire)
        back = of_device(jnp.argsort(places, axis=1), len(came))
        return _reordered(came, axes, axis, back)

    return jax.tree.map(leaf, held, axes)


def put_down(held: Any, subnets: Any, axes: Any, neurons: Parts, devices: int, wire: Wire) -> Any:
    """Stores the trained subnets: with their workers what goes along, with the owners the rest.

    Args:
        held: as for `hand_over`.
        subnets: the trained subnets of this device's workers.
        axes: the same.
        neurons: the same.
        devices: the same.
        wire: the same.

    Returns:
        What this device holds now; parameters of no layer are averaged.
    """

    def leaf(whole: Array, pieces: Array, axes: Axes) -> Array:
        if not goes_along(axes):
            return _to_owners(whole, pieces, axes, neurons, devices, wire)
        shape, _ = unfolded(pieces.shape[1:], axes)
        axis, _ = sharded_neurons(axes)
        return side_by_side(pieces.reshape(-1, *shape), axis).reshape(whole.shape)

    return jax.tree.map(leaf, held, subnets, axes)


def at_owners(held: Any, axes: Any, neurons: Parts, devices: int) -> Any:
    """The parameters with their owners, neuron by neuron.

    Args:
        held: as for `hand_over`.
        axes: the same.
        neurons: {layer: i32 [workers, part]}, what the workers hold.
        devices: the same.
    """

    def leaf(array: Array, axes: Axes) -> Array:
        if not goes_along(axes):
            return array
        shape, _ = unfolded(array.shape, axes)
        axis, layer = sharded_neurons(axes)
        local, part = len(neurons[layer]) // devices, neurons[layer].shape[1]
        split = array.reshape(*shape[:axis], local, part, *shape[axis + 1 :])
        pieces = jnp.moveaxis(split, axis, 0)
        pieces = pieces.reshape(local, *folded(pieces.shape[1:], axes))
        return _to_owners(array, pieces, axes, neurons, devices, None)

    return jax.tree.map(leaf, held, axes)


def in_slots(array: np.ndarray, axes: Axes, order: Order) -> np.ndarray:
    """An array of the full network as the workers hold it, on the host.

    Args:
        array: of the full network.
        axes: what lies along its axes.
        order: {layer: i32 [N]} as of `jist.ist.crossed`.
    """
    if not goes_along(axes):
        return array
    shape, _ = unfolded(array.shape, axes)
    axis, layer = sharded_neurons(axes)
    return np.take(array.reshape(shape), order[layer], axis=axis).reshape(array.shape)


def _to_owners(
    whole: Array, pieces: Array, axes: Axes, neurons: Parts, devices: int, wire: Wire
) -> Array:
    """Sends pieces in the workers' own order back to the owners of their neurons."""
    if sharded_axis(axes) is None:
        return send_back(whole, pieces, axes, neurons, devices, wire)
    axis, layer = sharded_neurons(axes)
    by_owner, places = _by_owner(neurons, layer)
    pieces = _reordered(pieces, axes, axis, of_device(places, len(pieces)))
    return send_back(whole, pieces, axes, by_owner, devices, wire)


def _by_owner(neurons: Parts, layer: str) -> tuple[Parts, Int[Array, "workers part"]]:
    """The partition with a layer's neurons sorted, so by owner, and where each stood before."""
    places = jnp.argsort(neurons[layer], axis=1)
    return {**neurons, layer: jnp.take_along_axis(neurons[layer], places, axis=1)}, places


def _reordered(pieces: Array, axes: Axes, axis: int, places: Int[Array, "local part"]) -> Array:
    """Every worker's piece with what lies at `places` along an axis."""
    shape, _ = unfolded(pieces.shape[1:], axes)

    def one(piece: Array, places: Array) -> Array:
        return take(piece.reshape(shape), places, axis).reshape(piece.shape)

    return jax.vmap(one)(pieces, places)
