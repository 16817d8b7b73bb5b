"""Neurons -> workers: the partition that opens every round.

Yuan et al. (VLDB 2022), §2.1: every hidden neuron goes to exactly one site, uniformly at random,
independently for each layer.

A layer whose name ends in `?` has a residual connection beside it (attention heads, whole blocks):
a worker without any of its neurons goes round it. It may have fewer neurons than there are workers,
and the rows of its partition ascend, so that blocks keep their order.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

SCHEMES = ("uniform", "stratified", "rolling")


def partition(
    key: PRNGKeyArray,
    widths: Mapping[str, int],
    workers: int,
    scheme: str = "uniform",
    *,
    shares: Sequence[float] | None = None,
    replicas: int = 1,
    round_number: Int[Array, ""] | int = 0,
) -> dict[str, Int[Array, "{workers} _"]]:
    """Assigns the neurons of every layer to the workers.

    The partition of a layer depends on the key, its name, its width and the number of workers only,
    so every device draws the same one and none has to be sent.

    >>> import jax
    >>> partition(jax.random.key(0), {"hidden1": 5}, workers=2)["hidden1"].shape
    (2, 3)

    Args:
        key: PRNG key of the round.
        widths: {layer: number of neurons N}.
        workers: number of workers n.
        scheme: "uniform" assigns all neurons of a layer at random; "stratified" cuts a layer into n
            equal stretches first and assigns each evenly, so that the device that stores a stretch
            sends the same number of neurons to every worker; "rolling" draws nothing: workers take
            windows that lie side by side and move on every round (see `_roll`).
        shares: each worker's share of the neurons, summing to 1, in a uniform partition; by default
            all are equal.
        replicas: how many workers have each neuron. A worker then has that many parts: its own and
            those of the workers that follow it.
        round_number: of a rolling partition.

    Returns:
        {layer: i32 [workers, ceil(N / workers)]}: row w holds the neurons of worker w. Where n does
        not divide N, some rows are one short and end with the index N, which is out of range: a
        gather fills zeros there, a scatter drops it. Which rows are short is drawn as well. With
        `shares`, rows are as long as the largest. Rows of a layer that may be absent ascend.

    Raises:
        ValueError: an unknown scheme, fewer than one worker, more workers than neurons of a layer
            that may not be absent, shares that are not positive, do not sum to 1, leave a worker
            without a neuron of such a layer, or are given for another partition than a uniform
            one or beside replicas, or replicas that are not between 1 and the workers.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, got {scheme!r}")
    if shares is not None and scheme != "uniform":
        raise ValueError(f"shares go with scheme='uniform', got {scheme!r}")
    if not 1 <= replicas <= max(workers, 1):
        raise ValueError(f"replicas must be between 1 and the {workers} workers, got {replicas}")
    if shares is not None and replicas > 1:
        raise ValueError(f"shares go with replicas=1, got {replicas}")
    for layer, width in widths.items():
        if workers < 1 or (workers > width and not may_be_absent(layer)):
            raise ValueError(
                f"workers must be between 1 and the {width} neurons of {layer!r}, got {workers}"
            )
    parts = {}
    for number, (layer, width) in enumerate(widths.items(), start=1):
        places = slots(layer, width, workers, shares)
        if scheme == "rolling":
            parts[layer] = _roll(round_number, number, width, places)
        else:
            of_layer = jax.random.fold_in(key, zlib.crc32(layer.encode()))
            parts[layer] = _draw(of_layer, width, places, scheme, alike=shares is None)
        if replicas > 1:
            following = [jnp.roll(parts[layer], -shift, axis=0) for shift in range(replicas)]
            parts[layer] = jnp.sort(jnp.concatenate(following, axis=1), axis=1)
    return {
        layer: jnp.sort(rows, axis=1) if may_be_absent(layer) else rows
        for layer, rows in parts.items()
    }


def may_be_absent(layer: str) -> bool:
    """Whether a worker may have none of a layer's neurons."""
    return layer.endswith("?")


def slots(
    layer: str, width: int, workers: int, shares: Sequence[float] | None
) -> Int[np.ndarray, "{workers} _"]:
    """Which positions of the shuffled neurons each worker takes; `width` where a slot stays empty.

    Args:
        layer: name of the layer, for messages.
        width: number of neurons N.
        workers: number of workers n.
        shares: as for `partition`.

    Returns:
        Positions, one row for each worker, as many as the largest share has.

    Raises:
        ValueError: shares that are not n positive numbers that sum to 1, or leave a worker nothing.
    """
    if shares is None:
        # One to each worker in turn, so that rows differ by at most one neuron.
        rows = -(-width // workers)
        return np.minimum(np.arange(rows * workers).reshape(rows, workers).T, width)
    if len(shares) != workers or min(shares) <= 0 or not abs(sum(shares) - 1) <= 1e-6:  # NaN too
        raise ValueError(
            f"shares must be {workers} positive numbers that sum to 1, got {tuple(shares)}"
        )
    # Rounded so that every neuron is assigned: the n-th end is always N.
    ends = np.round(np.cumsum(shares) * width).astype(int)
    counts = np.diff(ends, prepend=0)
    if counts.min() == 0 and not may_be_absent(layer):
        raise ValueError(
            f"shares must leave every worker a neuron, got {tuple(shares)} of the {width} neurons "
            f"of {layer!r}"
        )
    place = np.arange(counts.max())
    return np.where(place < counts[:, None], (ends - counts)[:, None] + place, width)


def _draw(
    key: PRNGKeyArray, width: int, places: Int[np.ndarray, "workers _"], scheme: str, alike: bool
) -> Int[Array, "workers _"]:
    workers = len(places)
    shuffle_key, row_key = jax.random.split(key)
    if scheme == "uniform":
        shuffled = jax.random.permutation(shuffle_key, width)
    else:
        # Neurons sorted by (stretch, noise): shuffled within their stretches, which keep order.
        stretch = jnp.arange(width) * workers // width
        shuffled = jnp.lexsort((jax.random.uniform(shuffle_key, (width,)), stretch))
    rows = jnp.append(shuffled.astype(jnp.int32), width)[places]
    # Where rows are not all alike, who gets which is drawn too, so that no worker is favoured.
    if alike and width % (workers if scheme == "uniform" else workers**2):
        rows = jax.random.permutation(row_key, rows)
    return rows


def _roll(
    round_number: Int[Array, ""] | int,
    number: int,
    width: int,
    places: Int[np.ndarray, "workers _"],
) -> Int[Array, "workers _"]:
    """Windows that lie side by side on a ring of the layer's neurons, and move on every round.

    After FedRolex (Alam, Liu, Yan, Zhang, NeurIPS 2022), where one window moves by a neuron a
    round. Here there are n of them, and if those of two layers moved alike, a weight would have
    both its neurons on one worker for ever or never. So the windows of the first layer move by
    their length and a neuron or some more, those of the second by twice as much, and so on: between
    layers of equal width every weight is trained about once in n rounds, and neurons get new
    neighbours.

    Args:
        round_number: number of the round.
        number: of the layer, from 1.
        width: number of neurons N.
        places: as of `slots`.
    """
    step = places.shape[1] + 1
    while math.gcd(step, width) > 1:  # else windows would come back before they were everywhere
        step += 1
    step = number * step % width
    start = jnp.asarray(round_number, jnp.uint32) % width * step % width
    moved = (places + start.astype(jnp.int32)) % width
    return jnp.where(places < width, moved, width).astype(jnp.int32)
