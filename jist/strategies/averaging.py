"""Workers that hold the whole network: each trains by itself, then what they have is averaged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jist.ist import average
from jist.ist.exchange import of_device
from jist.strategies.local import for_each_worker

# Maps what a worker has of its own to what is averaged, what it keeps, and its losses [steps].
Train = Callable[..., tuple[Any, Any, Float[Array, " steps"]]]


def train_and_average(
    train: Train,
    own: tuple[Any, ...],
    like: Any,
    weights: Float[Array, " workers"] | None,
    *,
    in_turn: bool,
) -> tuple[Any, Any, Float[Array, "local steps"]]:
    """Trains the workers of this device, and averages over those of all devices.

    Args:
        train: what a worker does with its own arguments.
        own: those arguments, trees of arrays [local, ...]; the first is what a worker keeps, and
            keeps as it is where it is absent.
        like: a tree like what is averaged.
        weights: of all workers, 0 of those that are absent; None if all take part.
        in_turn: as for `for_each_worker`. Means are then added up as workers are trained, so that
            no memory is needed for each of them.

    Returns:
        The mean, what each worker keeps [local, ...], and the losses of each.
    """
    local = len(jax.tree.leaves(own)[0])
    shares = None if weights is None else of_device(weights, local)
    if not in_turn:
        trained, kept, losses = for_each_worker(train, *own, in_turn=False)
        if shares is not None:
            kept = jax.tree.map(lambda new, old: _where(shares > 0, new, old), kept, own[0])
        return jax.tree.map(lambda leaf: average(leaf, weights), trained), kept, losses

    def add(total: Any, one: tuple[tuple[Any, ...], Array | None]) -> tuple[Any, tuple[Any, Array]]:
        arguments, share = one

        def present() -> tuple[Any, Any, Array]:
            trained, kept, losses = train(*arguments)
            total_now = jax.tree.map(lambda sum_, x: _add(sum_, x, share, local), total, trained)
            return total_now, kept, losses

        if share is None:
            total, kept, losses = present()
        else:
            losses = jax.eval_shape(train, *arguments)[2]
            nothing = jnp.zeros(losses.shape, losses.dtype)
            total, kept, losses = jax.lax.cond(
                share > 0, present, lambda: (total, arguments[0], nothing)
            )
        return total, (kept, losses)

    total, (kept, losses) = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, like), (own, shares))
    return jax.tree.map(lambda leaf: _over_devices(leaf, weights), total), kept, losses


def _add(total: Array, one: Array, share: Array | None, local: int) -> Array:
    """Adds a worker's share of the mean; counters advance alike on all that take part."""
    if not jnp.issubdtype(one.dtype, jnp.floating):
        return one
    return total + (one / local if share is None else (share * one).astype(one.dtype))


def _over_devices(total: Array, weights: Float[Array, " workers"] | None) -> Array:
    """The mean over all workers, from what each device has added up."""
    if weights is None:
        return average(total[None])
    if jnp.issubdtype(total.dtype, jnp.floating):
        return jax.lax.psum(total, "workers")
    # A device none of whose workers takes part has counted no step.
    return jax.lax.pmax(total, "workers")


def _where(chosen: Array, new: Array, old: Array) -> Array:
    return jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)
