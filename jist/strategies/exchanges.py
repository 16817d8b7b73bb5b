"""How the pieces of an IST round lie between rounds and travel: three ways, one form.

A way says how a tree (parameters, or an optimiser's state) lies on the mesh, gives every worker its
subnet, stores what was trained, and counts the bytes that a worker receives for it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jist import costs, ist
from jist.ist import exchange as travel
from jist.ist import handover
from jist.ist.wire import Wire, narrows


class Dealt(NamedTuple):
    """A round's partition.

    Attributes:
        neurons: {layer: i32 [workers, part]}, the neurons of each worker.
        own: the same of this device's workers.
        slots: where a crossed partition finds them; empty of others.
    """

    neurons: ist.Parts
    own: ist.Parts
    slots: ist.Parts


class Exchange(NamedTuple):
    """A way in which pieces travel.

    Attributes:
        name: of the way.
        specs: (tree, axes) -> how the tree lies on the mesh between rounds.
        arranged: a partition -> the same with every worker's neurons in the order of arrival.
        take: (tree, axes, dealt, wire) -> the subnets of this device's workers [local, ...].
        give: (tree, pieces, axes, dealt, weights, wire) -> what this device holds, with the trained
            pieces in their places.
        bytes_received: (tree, axes, wire, participants) -> what a worker on a device of its own
            receives in a round.
    """

    name: str
    specs: Callable[[Any, Any], Any]
    arranged: Callable[[ist.Parts], ist.Parts]
    take: Callable[[Any, Any, Dealt, Wire], Any]
    give: Callable[[Any, Any, Any, Dealt, travel.Weights, Wire], Any]
    bytes_received: Callable[[Any, Any, Wire, int], int]


def give_changes(
    exchange: Exchange,
    tree: Any,
    pieces: Any,
    taken: Any,
    axes: Any,
    dealt: Dealt,
    weights: travel.Weights,
    wire: Wire,
) -> Any:
    """As `exchange.give`, with changes in place of values where the wire rounds them.

    What is stored keeps what rounding leaves out: it moves by what the wire makes of a change, and
    where nothing was trained not at all. So errors are a share of a round's changes and do not add
    up over rounds, which is what error feedback is for (Karimireddy et al., ICML 2019); there the
    sender keeps them, here neurons have another sender in the next round.

    Args:
        exchange: the way.
        tree: the parameters that are stored.
        pieces: of this device's workers, trained.
        taken: the same before training.
        axes: as for `exchange.give`, as are the others.
        dealt: the same.
        weights: the same.
        wire: the same.
    """
    rounded = jax.tree.map(lambda leaf: narrows(wire, leaf.dtype), tree)
    sent = jax.tree.map(lambda r, new, old: new - old if r else new, rounded, pieces, taken)
    stored = jax.tree.map(lambda r, leaf: jnp.zeros_like(leaf) if r else leaf, rounded, tree)
    came = exchange.give(stored, sent, axes, dealt, weights, wire)
    return jax.tree.map(lambda r, leaf, new: leaf + new if r else new, rounded, tree, came)


def replicated(workers: int, part_widths: Mapping[str, int], *, overlapping: bool) -> Exchange:
    """Every device holds all; the trained pieces of all workers reach every device.

    Args:
        workers: number of workers n.
        part_widths: {layer: neurons in the widest subnet}.
        overlapping: whether neurons are on several workers.
    """

    def give(
        tree: Any, pieces: Any, axes: Any, dealt: Dealt, weights: travel.Weights, wire: Wire
    ) -> Any:
        return travel.gather_pieces(
            tree, pieces, axes, dealt.neurons, wire, weights, overlapping=overlapping
        )

    def bytes_received(tree: Any, axes: Any, wire: Wire, participants: int) -> int:
        return costs.replicated_bytes(tree, axes, part_widths, workers, wire, participants)

    return Exchange(
        name="replicated",
        specs=lambda tree, axes: jax.tree.map(lambda _: P(), tree),
        arranged=lambda parts: parts,
        take=lambda tree, axes, dealt, wire: ist.cut(tree, axes, dealt.own),
        give=give,
        bytes_received=bytes_received,
    )


def sharded(workers: int, devices: int, widths: Mapping[str, int]) -> Exchange:
    """Every device owns a shard; subnets go out to the workers and come back.

    Args:
        workers: number of workers n.
        devices: number of devices D.
        widths: {layer: number of neurons}.
    """

    def take(tree: Any, axes: Any, dealt: Dealt, wire: Wire) -> Any:
        return travel.send_out(tree, axes, dealt.neurons, devices, wire)

    def give(
        tree: Any, pieces: Any, axes: Any, dealt: Dealt, weights: travel.Weights, wire: Wire
    ) -> Any:
        return travel.send_back(tree, pieces, axes, dealt.neurons, devices, wire, weights)

    def bytes_received(tree: Any, axes: Any, wire: Wire, participants: int) -> int:
        return costs.sharded_bytes(tree, axes, workers, wire, participants)

    return Exchange(
        name="sharded",
        specs=travel.owner_specs,
        arranged=functools.partial(travel.sort_by_owner, widths=widths, devices=devices),
        take=take,
        give=give,
        bytes_received=bytes_received,
    )


def direct(workers: int, devices: int) -> Exchange:
    """Every device holds its workers' neurons and sends them on; the rest as `sharded`.

    Args:
        workers: number of workers n, all of which take part.
        devices: number of devices D.
    """

    def take(tree: Any, axes: Any, dealt: Dealt, wire: Wire) -> Any:
        return handover.hand_over(tree, axes, dealt.slots, dealt.neurons, devices, wire)

    def give(
        tree: Any, pieces: Any, axes: Any, dealt: Dealt, weights: travel.Weights, wire: Wire
    ) -> Any:
        return handover.put_down(tree, pieces, axes, dealt.neurons, devices, wire)

    def bytes_received(tree: Any, axes: Any, wire: Wire, participants: int) -> int:
        return costs.direct_bytes(tree, axes, workers, wire)

    return Exchange(
        name="direct",
        specs=travel.owner_specs,
        arranged=lambda parts: parts,
        take=take,
        give=give,
        bytes_received=bytes_received,
    )
