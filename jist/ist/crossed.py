"""Crossed partitions: a worker gets equally many neurons from every worker that had them last.

A stratified partition is even among the owners of the parameters (`jist.ist.partition`); a crossed
one is even among the holders of the round before, too, and among all pairs of both. So every worker
can send its neurons straight on to the workers that have them next, all of them equally many
(`jist.ist.handover`), where otherwise they go back to their owners and out again.

It depends on the round before, so the order in which the workers hold the neurons is carried along:
for every layer i32 [N], the neurons of worker 0, of worker 1, and so on. Its places are slots.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from jist.ist.partition import may_be_absent

Order = Mapping[str, Int[Array | np.ndarray, " _"]]


def check_crossed(widths: Mapping[str, int], workers: int) -> None:
    """Checks that every pair of a holder and an owner has a number of neurons that n divides.

    Raises:
        ValueError: the cube of the workers does not divide a width, or a worker may have none of a
            layer's neurons.
    """
    for layer, width in widths.items():
        if may_be_absent(layer):
            raise ValueError(
                f"partition='crossed' needs layers of which every worker has neurons, got {layer!r}"
            )
        if width % workers**3:
            raise ValueError(
                f"partition='crossed' needs widths that the cube of the {workers} workers, "
                f"{workers**3}, divides, got {width} neurons of {layer!r}"
            )


def first_order(width: int, workers: int) -> Int[np.ndarray, " {width}"]:
    """The order before the first round: every worker holds equally many neurons of every owner.

    >>> first_order(8, 2)
    array([0, 1, 4, 5, 2, 3, 6, 7], dtype=int32)
    """
    neurons = np.arange(width, dtype=np.int32)
    return neurons.reshape(workers, workers, -1).swapaxes(0, 1).ravel()


def draw(key: PRNGKeyArray, order: Order, workers: int) -> dict[str, Int[Array, "{workers} _"]]:
    """Draws which slots every worker takes over.

    Args:
        key: PRNG key of the round.
        order: {layer: i32 [N]}, as above; n³ divides N.
        workers: number of workers n.

    Returns:
        {layer: i32 [workers, N / n]}, sorted by the holders that the slots belong to. The neurons
        there are `order[layer][slots]`; row after row, they are the next order.
    """
    slots = {}
    for layer, neurons in order.items():
        width = len(neurons)
        part = width // workers
        noise = jax.random.uniform(jax.random.fold_in(key, zlib.crc32(layer.encode())), (width,))
        # By holder, then by owner, then at random; of each such n in a row every worker takes one.
        shuffled = jnp.lexsort((noise, neurons // part, jnp.arange(width) // part))
        slots[layer] = shuffled.astype(jnp.int32).reshape(part, workers).T
    return slots


def rounds(
    keys: Sequence[PRNGKeyArray], widths: Mapping[str, int], workers: int
) -> Iterator[dict[str, Int[Array, "{workers} _"]]]:
    """The neurons of every worker, round after round, {layer: i32 [workers, N / n]}.

    Args:
        keys: PRNG key of every round, from the first.
        widths: {layer: number of neurons N}.
        workers: number of workers n.
    """
    order: Order = {layer: first_order(width, workers) for layer, width in widths.items()}
    for key in keys:
        slots = draw(key, order, workers)
        neurons = {layer: jnp.asarray(order[layer])[rows] for layer, rows in slots.items()}
        yield neurons
        order = {layer: rows.ravel() for layer, rows in neurons.items()}
